"""The events of the first act: a lively mix of all types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from jwt_events import EventType, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.events import Event

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
