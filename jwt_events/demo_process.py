"""What one process of the demo does: publish events, or handle them as a service would.

`jwt_events.demo` starts one process for each role and speaks with it in lines. The first line on its standard input is
an `Order`; after that a word lets the publisher begin, and one more word or the end of input makes it leave, so that no
process outlives the one that started it. What it has to say goes to standard output, one `Report` a line. The URL
travels on standard input because everybody on a machine can read command lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from jwt_events import (
    EventType,
    KeyRotated,
    Publisher,
    RedisPubSub,
    RedisStream,
    SessionCreated,
    SessionDestroyed,
    Subscriber,
    TokenExpired,
    TokenRevoked,
)
from jwt_events.errors import JWTEventsError
from jwt_events.events import Event, fingerprint

# Seconds between two reports.
_BEAT = 0.1

# How many events are on their way to the server at once.
_PUBLISHING_TASKS = 64

_CREATED, _DESTROYED = EventType.SESSION_CREATED, EventType.SESSION_DESTROYED
_REVOKED, _EXPIRED, _ROTATED = EventType.TOKEN_REVOKED, EventType.TOKEN_EXPIRED, EventType.KEY_ROTATED

# All five come first. The length is prime, so that whoever looks at every tenth or hundredth event still sees them all.
_MIX = (
    *(_CREATED, _REVOKED, _ROTATED, _EXPIRED, _DESTROYED),
    *(_CREATED, _CREATED, _REVOKED, _EXPIRED, _CREATED, _REVOKED, _DESTROYED),
    *(_CREATED, _EXPIRED, _REVOKED, _CREATED, _DESTROYED, _EXPIRED, _REVOKED),
)
_CLIENTS = ("web", "ios", "android", "partner-api")
_REASONS = ("password changed", "device lost", "signed out everywhere", "account suspended", "unusual sign-in")


@dataclass(frozen=True, slots=True)
class Order:
    """What the processes of one demo have in common.

    Attributes:
        url: the server.
        transport: ``stream`` or ``pubsub``.
        destination: the key or channel.
        events: how many to publish.
        rate: how many of them per second; 0 means as fast as possible.
    """

    url: str = field(repr=False)
    transport: str
    destination: str
    events: int
    rate: float

    def make_transport(self) -> RedisStream | RedisPubSub:
        """Make the transport that was asked for; it connects when it is used."""
        if self.transport == "stream":
            return RedisStream(self.url, key=self.destination)
        return RedisPubSub(self.url, channel=self.destination)


@dataclass(frozen=True, slots=True)
class Report:
    """How far a process has come. The first one means that it is ready.

    Attributes:
        count: events published, or distinct events handled.
        latency_ms: from the making of the event that was handled last to its handler.
        recent: the event that was published last: type, fingerprint of its subject, remark.
        final: nothing will follow.
        latencies: all of them, in the final report of a subscriber: ``(milliseconds, how many)``.
        error: why the process had to give up.
    """

    count: int = 0
    latency_ms: float | None = None
    recent: Sequence[str] | None = None
    final: bool = False
    latencies: Sequence[tuple[float, int]] = ()
    error: str | None = None


def make_event(number: int) -> Event:
    """Make the event with this number of a lively mix, dated now; the first five are one of each type."""
    user, session = f"user-{number * 7 % 997}", f"session-{number * 31 % 4_099}"
    client, reason = _CLIENTS[number % len(_CLIENTS)], _REASONS[number % len(_REASONS)]
    now = datetime.now(UTC)
    expires = now + timedelta(minutes=1 + number % 59)
    match _MIX[number % len(_MIX)]:
        case EventType.TOKEN_REVOKED:
            claims = {"jti": uuid4().hex, "sub": user, "sid": session, "client_id": client, "exp": expires}
            return TokenRevoked.from_claims(claims, reason=reason)
        case EventType.TOKEN_EXPIRED:
            return TokenExpired(token_id=uuid4().hex, user_id=user, session_id=session, expired_at=now)
        case EventType.KEY_ROTATED:
            old, new = (f"2026-signing-{number // len(_MIX) + offset}" for offset in (0, 1))
            return KeyRotated(key_id=new, previous_key_id=old, algorithm="ES256", retire_at=expires)
        case EventType.SESSION_CREATED:
            return SessionCreated(session_id=session, user_id=user, client_id=client, expires_at=expires)
        case _:
            return SessionDestroyed(session_id=session, user_id=user, expires_at=expires, reason=reason)


def remark_on(event: Event) -> str:
    """Say in two or three words what a person would like to know about an event; never an identifier of a subject."""
    match event:
        case TokenRevoked(reason=str(remark)) | SessionDestroyed(reason=str(remark)):
            return remark
        case SessionCreated(client_id=str(remark)) | KeyRotated(algorithm=str(remark)):
            return remark
        case _:
            return ""


class Latencies(Counter[float]):
    """How many events took how many milliseconds. Kept with three digits, so that millions of them stay small."""

    def note(self, milliseconds: float) -> float:
        """Count one, and return it as it is kept."""
        kept = float(f"{max(milliseconds, 0.0):.3g}")
        self[kept] += 1
        return kept

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that so many percent of all do not exceed; ``None`` if there are none."""
        needed = self.total() * percent / 100
        for value, number in sorted(self.items()):
            needed -= number
            if needed <= 0:
                return value
        return None


class Tally:
    """What a subscriber has handled."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._latencies = Latencies()
        self._latest: float | None = None

    def add(self, event: Event, now: datetime) -> None:
        """Count an event, once."""
        if event.id not in self._ids:
            self._ids.add(event.id)
            self._latest = self._latencies.note((now - event.occurred_at).total_seconds() * 1_000)

    def report(self) -> Report:
        """Say how far it has come."""
        return Report(count=len(self._ids), latency_ms=self._latest)

    def final_report(self) -> Report:
        """Say everything."""
        return replace(self.report(), final=True, latencies=tuple(self._latencies.items()))


class Pace:
    """The publisher's progress: which event is next, and when it is due."""

    def __init__(self, order: Order) -> None:
        self._numbers = iter(range(order.events))
        self._interval = 1 / order.rate if order.rate else 0.0
        self._count = 0
        self._recent: Event | None = None

    def next_due(self) -> tuple[int, float] | None:
        """Return the next event's number and when it is due, in seconds after the first; ``None`` after the last."""
        number = next(self._numbers, None)
        return None if number is None else (number, number * self._interval)

    def add(self, event: Event) -> None:
        """Count a published event."""
        self._count += 1
        self._recent = event

    def report(self, *, final: bool = False) -> Report:
        """Say how far it has come."""
        event, self._recent = self._recent, None
        recent = (event.type, fingerprint(event.subject or event.id), remark_on(event)) if event else None
        return Report(count=self._count, recent=recent, final=final)


async def publish(order: Order, commands: asyncio.StreamReader) -> None:
    """Publish what was ordered, when told to begin."""
    async with Publisher(order.make_transport(), source="demo") as publisher:
        send(Report())
        if not await commands.readline():
            return
        pace = Pace(order)
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(commands.readline())
            working = tasks.create_task(_publish_all(publisher, order, pace))
            await _report_until([leaving, working], pace.report)
            leaving.cancel()
            working.cancel()
        send(pace.report(final=True))


async def _publish_all(publisher: Publisher, order: Order, pace: Pace) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()

    async def keep_publishing() -> None:
        while (planned := pace.next_due()) is not None:
            number, due = planned
            if due:
                await asyncio.sleep(began + due - clock())
            event = make_event(number)
            await publisher.publish(event)
            pace.add(event)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(_PUBLISHING_TASKS, order.events)):
            tasks.create_task(keep_publishing())


async def subscribe(order: Order, commands: asyncio.StreamReader) -> None:
    """Handle events until told to leave."""
    tally = Tally()
    subscriber = Subscriber(order.make_transport())

    @subscriber.on()
    async def count(event: Event) -> None:
        tally.add(event, datetime.now(UTC))

    async with subscriber:
        await _report_until([asyncio.ensure_future(commands.readline())], tally.report)
    send(tally.final_report())


async def _report_until(ends: Sequence[asyncio.Future[Any]], report: Callable[[], Report]) -> None:
    while not any(end.done() for end in ends):
        send(report())
        await asyncio.wait(ends, timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED)


def send(report: Report) -> None:
    """Write a report. If nobody listens any more, the end of input will say so too."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(asdict(report)).encode() + b"\n")


async def main(role: str) -> None:
    """Do what the order on standard input says.

    Args:
        role: ``publisher`` or ``subscriber``.
    """
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    if not (line := await commands.readline()):
        return
    order = Order(**json.loads(line))
    try:
        await (publish if role == "publisher" else subscribe)(order, commands)
    except* JWTEventsError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        send(Report(final=True, error=str(error)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
