"""Event models: one frozen pydantic model for each event of the JWT lifecycle.

Events are values: they compare by content. The constructor sets an id (UUIDv7) and the current time, and rejects
unknown fields. The ``repr`` shows short fingerprints in place of identifiers, so it is safe in logs and tracebacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import uuid_utils
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from jwt_events._internal.event_type import EventType as EventType  # noqa: PLC0414 - it is part of this module, too
from jwt_events.errors import InvalidEvent
from jwt_events.events._fields import Identifier, Instant, Metadata, Text, TokenId

if TYPE_CHECKING:
    from typing import Unpack

    from jwt_events.events import _parameters as parameters


def fingerprint(value: str) -> str:
    """Return eight hexadecimal digits that distinguish identifiers in a log without showing them."""
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _now() -> datetime:
    return datetime.now(UTC)


class Event(BaseModel):
    """Base class of all events. Construct one of its subclasses.

    Instants accept an aware datetime or a NumericDate (seconds since 1970, as in JWT claims); milliseconds and naive
    datetimes are rejected. Identifiers have 1 to 512 characters. A whole JWT is rejected in every field.

    Attributes:
        type: type of the event; fixed by the class.
        id: globally unique id, by default a new UUIDv7. Publishing the same object again keeps it.
        occurred_at: when the event happened, in UTC; by default now.
        source: name of the service that reports the event; ``None`` means the name of the publisher.
        metadata: additional data of the application: JSON, nested at most 8 levels.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    _SHOWN_IN_REPR: ClassVar[frozenset[str]] = frozenset({"type", "id", "occurred_at"})

    type: str
    id: Identifier = Field(default_factory=_new_id)
    occurred_at: Instant = Field(default_factory=_now)
    source: Identifier | None = None
    metadata: Metadata = Field(default_factory=dict)

    @property
    def subject(self) -> str | None:
        """Identifier of the token, session, user, client or key concerned: the CloudEvents ``subject``."""
        return None

    @property
    def needed_until(self) -> datetime | None:
        """Until when a service that starts later must still receive this event; ``None`` if the event does not say."""
        return None

    def __hash__(self) -> int:
        """Hash the id: equal events have equal ids."""
        return hash(self.id)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield values that are not secret, and fingerprints of identifiers; omit text and metadata."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self._SHOWN_IN_REPR or isinstance(value, datetime | bool):
                yield name, str(value)
            elif name.endswith("_id") and value is not None:
                yield name, f"#{fingerprint(value)}"

    def __str__(self) -> str:
        return repr(self)


class TokenRevoked(Event):
    """Tokens were revoked: they must be refused although they have not expired.

    The narrowest identifier decides what is revoked: ``token_id`` one token; else ``session_id`` the tokens of a
    session; else ``user_id`` all tokens of a user (with ``client_id``: those issued to that client); else ``client_id``
    all tokens of a client. Wider identifiers beside it are context for handlers. At least one is required.

    Attributes:
        token_id: the token's ``jti``, never the token itself.
        user_id: the ``sub``.
        session_id: the ``sid``.
        client_id: the ``client_id`` or ``azp``.
        issued_before: for rules wider than a token: tokens issued at or before this instant are revoked; ``None`` means
            ``occurred_at``.
        expires_at: when the rule may be dropped, usually the token's own ``exp``. A durable transport refuses an event
            that outlives its retention; ``None`` means as long as the transport keeps the event.
        reason: text for people, at most 1,024 characters.
    """

    type: Literal[EventType.TOKEN_REVOKED] = EventType.TOKEN_REVOKED
    token_id: TokenId | None = None
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    client_id: Identifier | None = None
    issued_before: Instant | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.TokenRevokedParameters]) -> None: ...

    @model_validator(mode="after")
    def _check_subject(self) -> Self:
        if self.subject is None:
            raise ValueError("give at least one of token_id, session_id, user_id, client_id")
        return self

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any], *, reason: str | None = None) -> Self:
        """Return the event that revokes the token with these decoded claims.

        Reads ``jti``, ``sub``, ``sid``, ``client_id`` (or ``azp``) and ``exp``; all other claims are ignored. Without a
        ``jti`` the event revokes by the next wider identifier, as described on the class, and has no ``expires_at``,
        because other tokens with that identifier may expire later than this one.

        Raises:
            pydantic.ValidationError: a claim has the wrong type, or all identifiers are missing.
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
        """The narrowest identifier given."""
        return self.token_id or self.session_id or self.user_id or self.client_id

    @property
    def needed_until(self) -> datetime | None:
        """Same as ``expires_at``: afterwards every token that it covers has expired."""
        return self.expires_at


class TokenExpired(Event):
    """A token expired.

    Attributes:
        token_id: the token's ``jti``.
        user_id: the ``sub``.
        session_id: the ``sid``.
        expired_at: the token's ``exp``.
    """

    type: Literal[EventType.TOKEN_EXPIRED] = EventType.TOKEN_EXPIRED
    token_id: TokenId
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    expired_at: Instant | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.TokenExpiredParameters]) -> None: ...

    @property
    def subject(self) -> str | None:
        """The token's id."""
        return self.token_id


class KeyRotated(Event):
    """A signing key came into use.

    Attributes:
        key_id: the ``kid`` of the new key; with ``compromised``, of the key that must not be trusted any more.
        previous_key_id: the ``kid`` of the key that it replaces.
        issuer: the ``iss`` of tokens signed with the key.
        algorithm: the ``alg``, for example ``ES256``.
        active_from: when the issuer begins to sign with the key; ``None`` means at once.
        retire_at: when the previous key is withdrawn.
        compromised: whether the key ``key_id`` leaked: tokens signed with it are refused from now on.
    """

    type: Literal[EventType.KEY_ROTATED] = EventType.KEY_ROTATED
    key_id: Identifier
    previous_key_id: Identifier | None = None
    issuer: Identifier | None = None
    algorithm: Identifier | None = None
    active_from: Instant | None = None
    retire_at: Instant | None = None
    compromised: bool = False

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.KeyRotatedParameters]) -> None: ...

    @property
    def subject(self) -> str | None:
        """The key's id."""
        return self.key_id


class SessionCreated(Event):
    """A user logged in.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        client_id: the client that the user logged in with.
        expires_at: when the session expires. A durable transport refuses an event that outlives its retention, because
            it could not revoke such a session reliably.
    """

    type: Literal[EventType.SESSION_CREATED] = EventType.SESSION_CREATED
    session_id: Identifier
    user_id: Identifier
    client_id: Identifier | None = None
    expires_at: Instant | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.SessionCreatedParameters]) -> None: ...

    @property
    def subject(self) -> str | None:
        """The session's id."""
        return self.session_id

    @property
    def needed_until(self) -> datetime | None:
        """Same as ``expires_at``."""
        return self.expires_at


class SessionDestroyed(Event):
    """A user logged out, or was logged out: the tokens of the session must be refused.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        expires_at: when its last token expires and the rule may be dropped; ``None`` means as long as the transport
            keeps the event.
        reason: text for people, at most 1,024 characters.
    """

    type: Literal[EventType.SESSION_DESTROYED] = EventType.SESSION_DESTROYED
    session_id: Identifier
    user_id: Identifier | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.SessionDestroyedParameters]) -> None: ...

    @property
    def subject(self) -> str | None:
        """The session's id."""
        return self.session_id

    @property
    def needed_until(self) -> datetime | None:
        """Same as ``expires_at``: afterwards every token of the session has expired."""
        return self.expires_at


class UnknownEvent(Event):
    """An event of a type that this version does not know; only handlers of every event receive it.

    Attributes:
        type: the type exactly as it was on the wire, for example ``jwt.session_paused.v1``.
        data: its content as received.
    """

    data: dict[str, JsonValue] = Field(default_factory=dict)

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.UnknownEventParameters]) -> None: ...


EVENT_CLASSES: Mapping[EventType, type[Event]] = {
    EventType.TOKEN_REVOKED: TokenRevoked,
    EventType.TOKEN_EXPIRED: TokenExpired,
    EventType.KEY_ROTATED: KeyRotated,
    EventType.SESSION_CREATED: SessionCreated,
    EventType.SESSION_DESTROYED: SessionDestroyed,
}
"""Event class of each known type."""


def make_event(kind: EventType, fields: Mapping[str, Any]) -> Event:
    """Return an event of a type with these fields.

    Raises:
        InvalidEvent: the fields are not valid for the type. The message names them, and never their values.
    """
    try:
        return EVENT_CLASSES[kind].model_validate(dict(fields))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidEvent([(_field_path(problem["loc"]), problem["msg"]) for problem in problems]) from None


def _field_path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in location) or "payload"
