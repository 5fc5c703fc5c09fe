"""The issuer process: publishes the events of the first act, and issues and revokes the tokens of the second."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from jwt_events import EventType, KeyRotated, Publisher, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.cli.demo._messages import Begin, Issue, Report, Revoke, Revoked, Setup
from jwt_events.cli.demo._processes import ParentProcess
from jwt_events.cli.demo._tokens import TokenIssuer
from jwt_events.events import Event, fingerprint

# How many `publish` calls run at once, at most.
_PUBLISHING_TASKS = 64

# Seconds between two revocations, so that a person can follow them.
_INTERVAL = 0.04

_CREATED, _DESTROYED = EventType.SESSION_CREATED, EventType.SESSION_DESTROYED
_REVOKED, _EXPIRED, _ROTATED = EventType.TOKEN_REVOKED, EventType.TOKEN_EXPIRED, EventType.KEY_ROTATED

# All five come first. The length is prime, so that every tenth or hundredth event still shows all types in turn.
_MIX = (
    *(_CREATED, _REVOKED, _ROTATED, _EXPIRED, _DESTROYED),
    *(_CREATED, _CREATED, _REVOKED, _EXPIRED, _CREATED, _REVOKED, _DESTROYED),
    *(_CREATED, _EXPIRED, _REVOKED, _CREATED, _DESTROYED, _EXPIRED, _REVOKED),
)
_CLIENTS = ("web", "ios", "android", "partner-api")
_REASONS = ("password changed", "device lost", "signed out everywhere", "account suspended", "unusual sign-in")


def make_event(number: int) -> Event:
    """Make the event with this number of a mix of all types, dated now; the first five are one of each type."""
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
    """Return two or three words about an event, for people; never an identifier of a subject."""
    match event:
        case TokenRevoked(reason=str(remark)) | SessionDestroyed(reason=str(remark)):
            return remark
        case SessionCreated(client_id=str(remark)) | KeyRotated(algorithm=str(remark)):
            return remark
        case _:
            return ""


class Progress:
    """The progress of publishing: which event is next, when it is due, and how many were published."""

    def __init__(self, setup: Setup) -> None:
        self._numbers = iter(range(setup.events))
        self._interval = 1 / setup.rate if setup.rate else 0.0
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
        """Report the count, and the most recent event unless an earlier report had it."""
        event, self._recent = self._recent, None
        recent = (event.type, fingerprint(event.subject or event.id), remark_on(event)) if event else None
        return Report(count=self._count, recent=recent, final=final)


async def run(setup: Setup, parent: ParentProcess) -> None:
    """Run both acts, as the parent's messages say, until cancelled."""
    await _publish(setup, parent)
    await _revoke(setup, parent)


async def _publish(setup: Setup, parent: ParentProcess) -> None:
    progress = Progress(setup)
    async with Publisher(setup.make_transport(), source="demo") as publisher, asyncio.TaskGroup() as tasks:
        parent.send(progress.report())
        await parent.receive(Begin)
        publishing = tasks.create_task(_publish_all(publisher, setup, progress))
        await parent.report_until(publishing, progress.report)
    parent.send(progress.report(final=True))


async def _publish_all(publisher: Publisher, setup: Setup, progress: Progress) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()

    async def keep_publishing() -> None:
        while (planned := progress.next_due()) is not None:
            number, due = planned
            if due:
                await asyncio.sleep(began + due - clock())
            event = make_event(number)
            await publisher.publish(event)
            progress.add(event)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(_PUBLISHING_TASKS, setup.events)):
            tasks.create_task(keep_publishing())


async def _revoke(setup: Setup, parent: ParentProcess) -> None:
    issuer = TokenIssuer((await parent.receive(Issue)).each)
    async with Publisher(setup.make_durable_transport(), source="demo") as publisher:
        parent.send(issuer.issue())
        while True:
            for number, event in issuer.revocations((await parent.receive(Revoke)).kind):
                published_at = time.monotonic()
                await publisher.publish(event)
                parent.send(Revoked(number, published_at, time.monotonic()))
                await asyncio.sleep(_INTERVAL)
