"""Announces an instance in the registry for as long as its list is open."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events._internal.clock import boottime
from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.errors import InvalidOption, TransportError
from jwt_events.fleet._announcement import CLOSED, MAX_LEASE, Announcement, name_from
from jwt_events.transport.base import Transport
from jwt_events.transport.optional import Registering, Registry

_BEATS_PER_LEASE: Final = 4
_WITHIN: Final = 2.0
_CLOSING_WITHIN: Final = 1.0
_MAX_TROUBLE: Final = 200


class Condition(NamedTuple):
    """The condition of a list at one moment; see `Announcement`."""

    position: str
    history: str
    state: str
    staleness: float | None
    trouble: str


class Announcer:
    """Announces an instance: when it is opened, with each beat, and in between when there is news.

    Args:
        transport: holds the registry.
        service: the name of the service.
        instance: the name of this instance of it.
        lease: how long its list lets tokens in without a proof: its ``max_staleness``, and what it tolerates.
        allows_stale: whether its list lets tokens in when it is stale.

    Attributes:
        attempted: set when the first announcement since it was opened was made, or has failed.
        lease: how long an event may be missing in an instance that cannot be heard.

    Raises:
        InvalidOption: a name is not valid, one of the two is missing, the lease is longer than a year, or the transport
            has no registry.
    """

    def __init__(
        self, transport: Transport, service: str | None, instance: str | None, *, lease: float, allows_stale: bool
    ) -> None:
        if service is None or instance is None:
            missing = "service" if service is None else "instance"
            raise InvalidOption(missing, "is missing: give both, the service and the name of this instance of it")
        if not isinstance(transport, Registering):
            raise InvalidOption("instance", f"{transport.name} has no registry of instances; use RedisStream")
        if lease > MAX_LEASE:
            problem = f"must be at most {MAX_LEASE:.0f} s for a list that announces itself: publishers wait for it"
            raise InvalidOption("max_staleness", problem)
        self.attempted: asyncio.Event = asyncio.Event()
        self.lease: float = lease
        self._transport: Registering = transport
        self._destination = transport.destination
        self._interval = lease / _BEATS_PER_LEASE
        self._notices = Notices()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._clock_ahead: float | None = None  # the server's clock, less ours
        self._is_stored = False  # whether the registry has had an entry of this run
        self._said = Announcement(
            service=name_from("service", service),
            instance=name_from("instance", instance),
            run="",
            position="",
            lease=lease,
            allows_stale=allows_stale,
            state=CLOSED,
            staleness=None,
            said_at=None,
            version=_version(),
        )

    @classmethod
    def of(
        cls, transport: Transport, service: str | None, instance: str | None, *, lease: float, allows_stale: bool
    ) -> Announcer | None:
        """Return what the options of a list mean; ``None`` if it does not announce itself."""
        if service is None and instance is None:
            return None
        return cls(transport, service, instance, lease=lease, allows_stale=allows_stale)

    def open(self, condition: Callable[[], Condition]) -> None:
        """Begin to announce.

        Args:
            condition: returns the condition of the list now.
        """
        self._said = replace(self._said, run=secrets.token_hex(6), lost_at=None)  # two of one name are told apart
        self._is_stored = False
        self.attempted.clear()
        self._task = asyncio.create_task(self._run(condition), name="jwt_events announcer")

    def hurry(self) -> None:
        """Announce the condition without waiting for the next beat."""
        self._asked.set()

    async def aclose(self) -> None:
        """Take the entry back, within about a second. Idempotent."""
        if self._task is not None:
            task, self._task = self._task, None
            await end([task])

    async def _run(self, condition: Callable[[], Condition]) -> None:
        try:
            while True:
                try:
                    async with self._transport.registry() as registry:  # after a failure a new one: it may be half open
                        while await self._announce(registry, condition()):
                            await self._beat()
                except Exception as error:  # noqa: BLE001 - of a transport; publishers must know of the list all the same
                    self._tell(error, describe(error))
                    self._asked.clear()
                await self._beat()
        finally:
            self.attempted.set()
            async with self._transport.registry() as registry:
                await self._withdraw(registry)

    async def _beat(self) -> None:
        """Wait until the next announcement is due."""
        self.attempted.set()
        beat = asyncio.get_running_loop().call_later(self._interval, self._asked.set)
        try:
            await self._asked.wait()
        finally:
            beat.cancel()

    def _tell(self, error: Exception, problem: str) -> None:
        self._notices.tell(
            "WARNING",
            "instance cannot announce itself, so publishers wait for its lease",
            once=type(error).__name__,
            error=problem,
            destination=self._destination,
        )

    async def _announce(self, registry: Registry, condition: Condition) -> bool:
        """Store what the list is like now; return whether that succeeded."""
        self._asked.clear()
        self._said = replace(
            self._said,
            position=condition.position,
            history=condition.history,
            state=condition.state,
            staleness=condition.staleness,
            trouble=condition.trouble[:_MAX_TROUBLE].encode(errors="replace").decode(),  # a path may be no Unicode
            said_at=None if self._clock_ahead is None else boottime() + self._clock_ahead,
        )
        try:
            clock, is_new = await registry.announce(
                self._said.field, self._said.encode(), within=min(_WITHIN, self._said.lease)
            )
        except TransportError as error:
            self._tell(error, str(error))
            return False
        if is_new and self._is_stored:
            self._said = replace(self._said, lost_at=clock)
            self.hurry()
        self._is_stored = True
        if clock is not None:
            if self._clock_ahead is None:
                self.hurry()  # an entry without an age would never be forgotten, if this instance were killed now
            self._clock_ahead = clock - boottime()
        return True

    async def _withdraw(self, registry: Registry) -> None:
        """Remove the entry; without the right to do so, say that the list is closed."""
        field, closed = self._said.field, replace(self._said, state=CLOSED)
        try:
            try:
                await registry.forget([field], within=_CLOSING_WITHIN)
            except TransportError:
                await registry.announce(field, closed.encode(), within=_CLOSING_WITHIN)
        except TransportError as error:
            logger.debug("entry of an instance was not taken back", error=str(error))


def _version() -> str:
    package = sys.modules[__name__.partition(".")[0]]  # it is imported before its parts
    return str(getattr(package, "__version__", ""))
