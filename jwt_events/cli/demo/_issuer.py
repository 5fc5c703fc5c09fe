"""The issuer of tokens: publishes the events of the first act, and signs and revokes the tokens of the second."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from jwt_events import EventType, KeyRotated, Publisher, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.cli.demo._messages import Begin, Issue, Order, Report, Revoke, Revoked
from jwt_events.cli.demo._processes import Parent, report_until
from jwt_events.cli.demo._tokens import Office
from jwt_events.events import Event, fingerprint

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


# How many events are on their way to the server at once.
_PUBLISHING_TASKS = 64

# Seconds between two revocations, for eyes to follow.
_INTERVAL = 0.04


async def play(order: Order, parent: Parent) -> None:
    """Do what the parent says, act by act."""
    await _publish(order, parent)
    await _revoke(order, parent)


async def _publish(order: Order, parent: Parent) -> None:
    pace = Pace(order)
    async with Publisher(order.make_transport(), source="demo") as publisher, asyncio.TaskGroup() as tasks:
        parent.send(pace.report())
        await parent.receive(Begin)
        publishing = tasks.create_task(_publish_all(publisher, order, pace))
        await report_until(publishing, parent, pace.report)
    parent.send(pace.report(final=True))


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


async def _revoke(order: Order, parent: Parent) -> None:
    office = Office((await parent.receive(Issue)).each)
    async with Publisher(order.make_durable_transport(), source="demo") as publisher:
        parent.send(office.issued())
        while True:
            for number, event in office.revocations((await parent.receive(Revoke)).kind):
                published_at = time.monotonic()
                await publisher.publish(event)
                parent.send(Revoked(number, published_at, time.monotonic()))
                await asyncio.sleep(_INTERVAL)
