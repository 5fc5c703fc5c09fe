"""How a publisher waits until an event is in force everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.clock import boottime
from jwt_events._internal.receipt import Propagation
from jwt_events.errors import InvalidOption, TransportError
from jwt_events.fleet._announcement import Announcement, name_from, parse
from jwt_events.fleet._barrier import Barrier, lease_ends
from jwt_events.fleet._standing import GONE_AFTER
from jwt_events.transport.base import Transport
from jwt_events.transport.optional import Registering, Registry

DEFAULT_LEASE: Final = 5.0
"""The default ``max_staleness`` of a list, in seconds."""

_FIRST_PAUSE: Final = 0.001
_GROWTH: Final = 1.25  # of the pauses: waiting a fifth too long costs less than reading twice as often
_MAX_PAUSE: Final = 0.05
_READ_WITHIN: Final = 1.0
_EARLY: Final = 0.002  # seconds by which a timer of an event loop may be early


class InForce(Protocol):
    """A way to wait until an event is in force everywhere: `Lease` or `Fleet`."""

    def check(self, transport: Transport) -> None:
        """Raise `InvalidOption` if this cannot be done on a transport."""
        ...

    async def wait(self, where: Transport | Registering, position: str | None, accepted_at: float) -> Propagation:
        """Wait, and return where the event is in force. Cancelling is safe.

        Args:
            where: the transport on which the event was published, or what has its registry at hand.
            position: its position; ``None`` where there are no positions.
            accepted_at: a time (`boottime`) at which the server had surely accepted it.
        """
        ...


class Lease:
    """Wait until every list relies on a proof that was begun after the event was accepted, or on none.

    It asks no server, and needs nothing of the lists but that their ``max_staleness`` is at most this one, and that
    none is opened with ``on_stale="allow"``.

    Args:
        max_staleness: the longest ``max_staleness`` of all lists, in seconds.

    Raises:
        InvalidOption: it is no positive number of seconds.
    """

    def __init__(self, max_staleness: float = DEFAULT_LEASE) -> None:
        self.max_staleness: float = options.seconds("max_staleness", max_staleness)

    def __repr__(self) -> str:
        return f"Lease({self.max_staleness!r})"

    def check(self, transport: Transport) -> None:
        """Accept every durable transport; see `InForce.check`."""
        if not transport.guarantees.durable:
            raise InvalidOption("in_force", f"{transport.name} is not durable, so no revocation list reads it")

    async def wait(self, where: Transport | Registering, position: str | None, accepted_at: float) -> Propagation:
        """Wait until the time has passed; see `InForce.wait`."""
        await _sleep_until(lease_ends(accepted_at, self.max_staleness))
        return Propagation("lease", datetime.now(UTC))


class Fleet:
    """Wait until every registered instance has said that it applied the event, or its lease has ended.

    An instance is a `RevocationList` with ``instance=``. If the registry cannot be read or has lost entries lately, and
    for a service of which no instance is registered, the ``lease`` is waited for.

    Args:
        services: the services to wait for; none means all instances that are registered.
        timeout: seconds to wait for the registry, and for lists that have no lease, as ``on_stale="allow"`` lets them
            rely on what they know for ever.
        lease: the longest ``max_staleness`` of lists that are not registered, in seconds.

    The wait takes at most the timeout and the longest lease together.

    Raises:
        InvalidOption: a name or a number of seconds is not valid.
    """

    def __init__(self, *services: str, timeout: float = 2.0, lease: float = DEFAULT_LEASE) -> None:
        self.services: tuple[str, ...] = tuple(name_from("services", service) for service in services)
        self.timeout: float = options.seconds("timeout", timeout)
        self.lease: float = options.seconds("lease", lease)

    def __repr__(self) -> str:
        return f"Fleet({', '.join([*map(repr, self.services), f'timeout={self.timeout!r}', f'lease={self.lease!r}'])})"

    def check(self, transport: Transport) -> None:
        """Accept a transport that has a registry; see `InForce.check`."""
        _registering(transport)

    async def wait(self, where: Transport | Registering, position: str | None, accepted_at: float) -> Propagation:
        """Wait for acknowledgements and leases; see `InForce.wait`."""
        registering = _registering(where)
        if position is None:  # there is nothing to compare acknowledgements with
            return await Lease(self.lease).wait(where, position, accepted_at)
        barrier = Barrier(position, accepted_at, self.services, timeout=self.timeout, lease=self.lease)
        async with registering.registry() as registry:
            survey = _Survey(registry, barrier)
            give_up_at = accepted_at + self.timeout
            pause = _FIRST_PAUSE
            while await survey.read(give_up_at) and (until := barrier.wait_until(now := boottime())) is not None:
                await asyncio.sleep(min(pause, until - now))
                pause = min(pause * _GROWTH, _MAX_PAUSE)
            if not survey.was_read:
                logger.warning("registry of instances cannot be read: the lease is waited for", error=str(survey.error))
                return await Lease(self.lease).wait(where, position, accepted_at)
            if not barrier.knows_all:
                logger.warning("not all instances are registered: the lease is waited for", services=barrier.unheard())
                await _sleep_until(lease_ends(accepted_at, self.lease))
            await survey.forget_the_gone(accepted_at)
            return barrier.result(datetime.now(UTC))


class _Survey:
    """Reads a registry again and again for a barrier, and forgets what has been silent for very long."""

    def __init__(self, registry: Registry, barrier: Barrier) -> None:
        self.was_read = False
        self.error: TransportError | None = None
        self._registry = registry
        self._barrier = barrier
        self._first: Mapping[str, bytes] = {}
        self._last: Mapping[str, bytes] = {}
        self._clock: float | None = None
        self._history = ""

    async def read(self, give_up_at: float) -> bool:
        """Read the registry, for the first time until ``give_up_at``; return whether it was read now or before."""
        while True:
            try:
                entries, self._clock, history = await self._registry.entries(within=_READ_WITHIN)
            except TransportError as error:
                self.error = error
                if self.was_read or not error.retryable or boottime() >= give_up_at:
                    return self.was_read
                await asyncio.sleep(_MAX_PAUSE)
                continue
            if not self.was_read:
                self.was_read, self._first = True, entries
            known, self._last = self._last, entries
            if history != self._history:  # so that all are compared again
                known, self._history = {}, history
            news = [parse(field, entry) for field, entry in entries.items() if entry != known.get(field)]
            self._barrier.read((said for said in news if said is not None), history, self._clock)
            return True

    async def forget_the_gone(self, accepted_at: float) -> None:
        """Remove entries that did not change for their own lease and are older than an hour by the server's clock."""
        if self._clock is None:
            return
        gone = [
            field
            for field, entry in self._last.items()
            if entry == self._first.get(field)
            and ((said := parse(field, entry)) is None or self._is_gone(said, accepted_at, self._clock))
        ]
        try:
            await self._registry.forget(gone, within=_READ_WITHIN)
        except TransportError as error:
            logger.debug("entries of instances that are gone were not removed", error=str(error))

    @staticmethod
    def _is_gone(said: Announcement, accepted_at: float, clock: float) -> bool:
        if said.said_at is None or clock - said.said_at < GONE_AFTER:
            return False
        return said.allows_stale or boottime() >= lease_ends(accepted_at, said.lease)


def _registering(where: Transport | Registering) -> Registering:
    """Return what has a registry, or raise `InvalidOption`."""
    if not isinstance(where, Registering):
        raise InvalidOption("in_force", f"{where.name} has no registry of instances; use Lease, or RedisStream")
    return where


async def _sleep_until(then: float) -> None:
    """Wait until a time of `boottime`."""
    await asyncio.sleep(max(0.0, then - boottime()) + _EARLY)


def check_in_force(in_force: object, transport: Transport) -> None:
    """Check the option ``in_force`` of a publish.

    Raises:
        InvalidOption: it is neither a `Lease` nor a `Fleet`, or cannot be waited for on this transport.
    """
    if not isinstance(in_force, (Lease, Fleet)):
        raise InvalidOption("in_force", "must be a Lease or a Fleet, such as Lease(5.0) or Fleet('orders')")
    in_force.check(transport)
