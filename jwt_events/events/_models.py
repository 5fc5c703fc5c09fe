"""What happened: one frozen model per event in the life of a JWT.

Events are values. Each gets an id (UUIDv7) and the time of its making by itself, refuses what it does not know, and
compares by content. Their ``repr`` shows short fingerprints in place of identifiers, so that an event can stand in a
log line or a traceback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

import uuid_utils
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from jwt_events._internal.event_type import EventType as EventType  # noqa: PLC0414 - it belongs here, too
from jwt_events.errors import InvalidEvent
from jwt_events.events._fields import Identifier, Instant, Metadata, Text, TokenId


def fingerprint(value: str) -> str:
    """Eight hexadecimal digits that tell identifiers apart in a log without showing them."""
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _now() -> datetime:
    return datetime.now(UTC)


class Event(BaseModel):
    """What every event has. Make one of its subclasses.

    Instants accept an aware datetime or a NumericDate (seconds since 1970, as in JWT claims); milliseconds and naive
    datetimes are refused. Identifiers are 1 to 512 characters. A whole JWT is refused everywhere.

    Attributes:
        type: what happened; fixed by the class.
        id: identifies this event everywhere; a UUIDv7 made on construction. Publishing again keeps it.
        occurred_at: when it happened, in UTC; now, unless given.
        source: who says so; ``None`` lets the publisher fill in its own name.
        metadata: whatever else the application wants to carry: JSON, nested at most 8 levels.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    _PLAIN: ClassVar[frozenset[str]] = frozenset({"type", "id", "occurred_at"})

    type: str
    id: Identifier = Field(default_factory=_new_id)
    occurred_at: Instant = Field(default_factory=_now)
    source: Identifier | None = None
    metadata: Metadata = Field(default_factory=dict)

    @property
    def subject(self) -> str | None:
        """The identifier of what the event is about: the CloudEvents ``subject``."""
        return None

    @property
    def needed_until(self) -> datetime | None:
        """Until when a late starter still has to learn of this event; ``None`` if the event does not say."""
        return None

    def __hash__(self) -> int:
        """Equal events have equal ids."""
        return hash(self.id)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what is no secret, and fingerprints of identifiers; leave out text and metadata."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self._PLAIN or isinstance(value, datetime | bool):
                yield name, str(value)
            elif name.endswith("_id") and value is not None:
                yield name, f"#{fingerprint(value)}"

    def __str__(self) -> str:
        return repr(self)


class TokenRevoked(Event):
    """Tokens that must stop working now, although they have not expired.

    The narrowest identifier decides what is revoked: ``token_id`` one token; else ``session_id`` the tokens of a
    session; else ``user_id`` all tokens of a user (with ``client_id``: those issued to that client); else ``client_id``
    all tokens of a client. Wider identifiers beside it are context for handlers. At least one must be given.

    Attributes:
        token_id: the token's ``jti``, never the token.
        user_id: the ``sub``.
        session_id: the ``sid``.
        client_id: the ``client_id`` or ``azp``.
        issued_before: for rules wider than a token: tokens issued at or before this instant are revoked; ``None`` means
            ``occurred_at``.
        expires_at: when the rule may be forgotten, usually the token's own ``exp``. A durable transport refuses one
            beyond its retention; ``None`` means as long as the transport remembers.
        reason: for people, at most 1,024 characters.
    """

    type: Literal[EventType.TOKEN_REVOKED] = EventType.TOKEN_REVOKED
    token_id: TokenId | None = None
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    client_id: Identifier | None = None
    issued_before: Instant | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.subject is None:
            raise ValueError("give at least one of token_id, session_id, user_id, client_id")
        return self

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any], *, reason: str | None = None) -> Self:
        """Revoke the token that these decoded claims belong to.

        Reads ``jti``, ``sub``, ``sid``, ``client_id`` (or ``azp``) and ``exp``; all others are ignored. Without a
        ``jti`` the next wider identifier is revoked, as described on the class, for as long as the transport remembers:
        others of its tokens may live longer than this one.

        Raises:
            pydantic.ValidationError: a claim has the wrong type, or none of the identifiers is there.
            TypeError: ``claims`` is not a mapping: decode the token first.
        """
        if not isinstance(claims, Mapping):
            raise TypeError(f"claims must be a mapping, the decoded payload of a token, not {type(claims).__name__}")
        client_id = claims.get("client_id")
        return cls(
            token_id=claims.get("jti"),
            user_id=claims.get("sub"),
            session_id=claims.get("sid"),
            client_id=claims.get("azp") if client_id is None else client_id,
            expires_at=None if claims.get("jti") is None else claims.get("exp"),
            reason=reason,
        )

    @property
    def subject(self) -> str | None:
        """The narrowest identifier."""
        return self.token_id or self.session_id or self.user_id or self.client_id

    @property
    def needed_until(self) -> datetime | None:
        """As long as a token that it covers can live."""
        return self.expires_at


class TokenExpired(Event):
    """A token reached its end of life by itself.

    Attributes:
        token_id: the token's ``jti``.
        user_id: the ``sub``.
        session_id: the ``sid``.
        expired_at: its ``exp``.
    """

    type: Literal[EventType.TOKEN_EXPIRED] = EventType.TOKEN_EXPIRED
    token_id: TokenId
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    expired_at: Instant | None = None

    @property
    def subject(self) -> str | None:
        """The token's id."""
        return self.token_id


class KeyRotated(Event):
    """A signing key came into use.

    Attributes:
        key_id: the ``kid`` of the new key; with ``compromised``, of the key that must not be trusted any more.
        previous_key_id: the ``kid`` that it replaces.
        issuer: whose keys: the ``iss``.
        algorithm: the ``alg``, for example ``ES256``.
        active_from: when tokens signed with it begin to appear; ``None`` means at once.
        retire_at: when the previous key is withdrawn.
        compromised: the key leaked: tokens signed with it are refused from now on.
    """

    type: Literal[EventType.KEY_ROTATED] = EventType.KEY_ROTATED
    key_id: Identifier
    previous_key_id: Identifier | None = None
    issuer: Identifier | None = None
    algorithm: Identifier | None = None
    active_from: Instant | None = None
    retire_at: Instant | None = None
    compromised: bool = False

    @property
    def subject(self) -> str | None:
        """The key's id."""
        return self.key_id


class SessionCreated(Event):
    """A user logged in.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        client_id: the client that it was opened with.
        expires_at: when it ends by itself. A durable transport refuses one beyond its retention: the session could not
            be revoked reliably for all of its life.
    """

    type: Literal[EventType.SESSION_CREATED] = EventType.SESSION_CREATED
    session_id: Identifier
    user_id: Identifier
    client_id: Identifier | None = None
    expires_at: Instant | None = None

    @property
    def subject(self) -> str | None:
        """The session's id."""
        return self.session_id

    @property
    def needed_until(self) -> datetime | None:
        """As long as the session can live."""
        return self.expires_at


class SessionDestroyed(Event):
    """A user logged out, or was logged out: the tokens of the session must stop working.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        expires_at: when its last token expires and this may be forgotten; ``None`` means as long as the transport
            remembers.
        reason: for people, at most 1,024 characters.
    """

    type: Literal[EventType.SESSION_DESTROYED] = EventType.SESSION_DESTROYED
    session_id: Identifier
    user_id: Identifier | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    @property
    def subject(self) -> str | None:
        """The session's id."""
        return self.session_id

    @property
    def needed_until(self) -> datetime | None:
        """As long as a token of the session can live."""
        return self.expires_at


class UnknownEvent(Event):
    """An event of a type that this version does not know; only handlers of every event see it.

    Attributes:
        type: the type exactly as it was on the wire, for example ``jwt.session_paused.v1``.
        data: its content, as it came.
    """

    data: dict[str, JsonValue] = Field(default_factory=dict)


EVENT_CLASSES: Mapping[EventType, type[Event]] = {
    EventType.TOKEN_REVOKED: TokenRevoked,
    EventType.TOKEN_EXPIRED: TokenExpired,
    EventType.KEY_ROTATED: KeyRotated,
    EventType.SESSION_CREATED: SessionCreated,
    EventType.SESSION_DESTROYED: SessionDestroyed,
}
"""The class of every known type."""


def make_event(kind: EventType, fields: Mapping[str, Any]) -> Event:
    """Make an event from its type and its fields.

    Raises:
        InvalidEvent: the fields are not those of that type. The message names them, and never their values.
    """
    try:
        return EVENT_CLASSES[kind].model_validate(dict(fields))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidEvent([(_place(problem["loc"]), problem["msg"]) for problem in problems]) from None


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in location) or "payload"
