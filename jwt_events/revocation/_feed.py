"""Follow it: everything that a durable transport remembers, then everything that comes, for as long as anybody asks."""

from __future__ import annotations

import asyncio
from typing import Protocol

from loguru import logger

from jwt_events._internal.retry import backoff
from jwt_events.envelope import decode
from jwt_events.errors import Closed, ConnectionFailed, DecodeError, InvalidOption, TransportError, describe
from jwt_events.events import Event
from jwt_events.transport.base import Batch, Delivery, Gap, Guarantees, Transport

# How long the history may stand still before entering gives up, in seconds: longer than a server takes to come back.
_STALLED = 10.0
_STALLED_WHY = "the server is a replica, or does not answer"

# After a refusal a feed begins anew, soon at first: rights and passwords are put right while services run.
_INITIAL_PAUSE = 0.5
_MAX_PAUSE = 5.0


class Follower(Protocol):
    """Who is told what a feed brings."""

    def take(self, event: Event) -> None:
        """An event, in order; a duplicate now and then."""

    def take_poison(self, error: DecodeError) -> None:
        """Bytes that are no event."""

    def report(self, gap: Gap) -> None:
        """Events may have been missed."""

    def reconnected(self) -> None:
        """A connection that had been lost was replaced."""

    def prove(self, current_as_of: float) -> None:
        """All events that existed at that time (`time.monotonic`) have been taken."""


class Feed:
    """Reads a transport from its oldest event on, across everything that can happen to a server.

    It only reads: it acknowledges nothing and buries nothing, so a service needs no right to write for it.

    Args:
        transport: what to read; durable, and every receiver sees every event.
        follower: who is told.
        poll_timeout: seconds after which a quiet read ends, which proves that nothing is new.

    Attributes:
        caught_up: done when all that was remembered has been taken; has the error if that failed.
        failure: what went wrong last; ``None`` if all is well.
    """

    def __init__(self, transport: Transport, follower: Follower, *, poll_timeout: float) -> None:
        self.caught_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: Exception | None = None
        self._transport = transport
        self._follower = follower
        self._poll_timeout = poll_timeout
        self._log = logger.bind(transport=transport.name, destination=transport.destination)

    async def run(self) -> None:
        """Follow until cancelled. Ends by itself only if the first history could not be read."""
        failures = 0
        try:
            while True:
                try:
                    await self._follow()
                except Exception as error:  # noqa: BLE001 - whatever it is, going deaf would be worse
                    if _is_cancelled():
                        return  # it failed on its way out
                    failures = 1 if self.failure is None else failures + 1
                    self.failure = error
                    if not self.caught_up.done():
                        self._give_up(error)
                        return
                    problem = str(error) if isinstance(error, TransportError) else describe(error)
                    self._log.error("following failed and will begin anew", error=problem, attempt=failures)
                await asyncio.sleep(backoff(failures, initial=_INITIAL_PAUSE, maximum=_MAX_PAUSE))
        finally:
            self._give_up(Closed("closed before the history was read"))

    def _give_up(self, error: Exception) -> None:
        """Tell whoever waits for the end of the history, if anybody still does, that it will not be reached."""
        if not self.caught_up.done():
            self.caught_up.set_exception(error)
            self.caught_up.exception()  # counts as noticed

    async def _follow(self) -> None:
        now = asyncio.get_running_loop().time
        async with self._transport.receiver(from_oldest=True, poll_timeout=self._poll_timeout) as receiver:
            moved_at = now()
            while True:
                page = await receiver.receive()
                self._take(page)
                if page.current_as_of is not None:
                    self._prove(page.current_as_of)
                if page.deliveries:
                    moved_at = now()
                elif not self.caught_up.done() and now() - moved_at > _STALLED:
                    raise ConnectionFailed(f"{self._transport.destination!r} cannot be proven current: {_STALLED_WHY}")

    def _take(self, page: Batch) -> None:
        if page.reconnected:
            self._follower.reconnected()
        for gap in page.gaps:
            self._log.warning("events may have been missed", cause=gap.cause, since=gap.since, lost=gap.lost)
            self._follower.report(gap)
        for delivery in page.deliveries:
            try:
                event = decode(delivery.payload).event
            except DecodeError as error:
                self._refuse(delivery, error)
            else:
                self._follower.take(event)

    def _refuse(self, delivery: Delivery, error: DecodeError) -> None:
        self._log.error(
            "delivery skipped, it is no event",
            reason=error.reason,
            detail=error.detail,
            position=delivery.position,
            size=len(delivery.payload),
        )
        self._follower.take_poison(error)

    def _prove(self, current_as_of: float) -> None:
        self.failure = None
        self._follower.prove(current_as_of)
        if not self.caught_up.done():
            self.caught_up.set_result(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def followable(transport: Transport) -> Transport:
    """Accept a transport that remembers, and of which every receiver sees every event.

    Raises:
        InvalidOption: it is none.
    """
    guarantees = getattr(transport, "guarantees", None)
    if not isinstance(guarantees, Guarantees):
        raise InvalidOption("transport", f"must be a transport, RedisStream(…), not {type(transport).__name__}")
    if not guarantees.durable:
        problem = (
            f"{transport.name} remembers nothing: an instance that starts, or was away for a moment, would let revoked"
            " tokens in; use RedisStream"
        )
        raise InvalidOption("transport", problem)
    if not guarantees.fan_out:
        raise InvalidOption("transport", "shares events within a group, but each instance must know all; leave it out")
    return transport
