"""Event models: one frozen pydantic model for each event of the JWT lifecycle.

Events are values: they compare by content. The constructor sets an id (UUIDv7) and the current time, and rejects
unknown fields. The ``repr`` shows short fingerprints in place of identifiers, so it is safe in logs and tracebacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jwt_events._internal.event_type import EventType as EventType  # noqa: PLC0414 - it is part of this module, too
from jwt_events.events._claim_names import ClaimNames, claim_names_of
from jwt_events.events._claims import revocation_from, revocation_of_others
from jwt_events.events._conditions import Conditions
from jwt_events.events._coverage import covered_by, covered_by_keys, covered_in_session, scope_problem
from jwt_events.events._coverage import fingerprint as fingerprint  # noqa: PLC0414 - it is part of this module, too
from jwt_events.events._event import Event, first_given, of_constructor, require_past
from jwt_events.events._fields import Data, Identifier, Instant, Text, TokenId
from jwt_events.events._rotation import ambiguity, compromised_keys

if TYPE_CHECKING:
    from typing import Unpack

    from jwt_events.events import _parameters as parameters


class TokenRevoked(Event):
    """Tokens were revoked: they must be refused although they have not expired.

    The narrowest identifier decides what is revoked: ``token_id`` one token; else ``session_id`` the tokens of a
    session; else ``user_id`` all tokens of a user (with ``client_id``: those issued to that client); else ``client_id``
    all tokens of a client. Wider identifiers beside it are context for handlers. ``claims`` beside it revokes
    only those of them with these claims; alone, all tokens with them; and ``everyone`` all tokens. One is required.

    Attributes:
        token_id: the token's ``jti``, never the token itself.
        user_id: the ``sub``.
        session_id: the ``sid``.
        client_id: the ``client_id`` or ``azp``.
        except_session_id: the ``sid`` of the one session of the user whose tokens live; needs ``user_id``.
        claims: conditions that a token must meet, all of them: claims, and the value that each equals, or has in its
            list. A name with dots leads into objects: ``act.sub``, at most three levels. One to eight.
        everyone: revokes all tokens; goes with none of the above.
        issued_before: for rules wider than a token: tokens issued at or before this instant are revoked; ``None`` means
            ``occurred_at``. At most five minutes ahead.
        expires_at: when the rule may be dropped, usually the token's own ``exp``. ``None`` means for ever. A durable
            transport without a ledger refuses an event that outlives its retention; there, ``None`` means as long as
            it keeps the event.
        reason: text for people, at most 1,024 characters.
    """

    _IS_COMPARABLE: ClassVar[bool] = True
    _ONE_OF: ClassVar[tuple[str, ...]] = ("token_id", "session_id", "user_id", "client_id", "claims", "everyone")
    _SUBJECT: ClassVar[tuple[str, ...]] = ("token_id", "session_id", "user_id", "client_id")

    type: Literal[EventType.TOKEN_REVOKED] = EventType.TOKEN_REVOKED
    token_id: TokenId | None = None
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    client_id: Identifier | None = None
    except_session_id: Identifier | None = None
    claims: Conditions | None = None
    everyone: bool = False
    issued_before: Instant | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.TokenRevokedParameters]) -> None: ...

    @field_validator("except_session_id", "everyone")
    @classmethod
    @of_constructor
    def _check_scope(cls, value: object, info: ValidationInfo) -> None:
        if (problem := scope_problem(str(info.field_name), value, info.data)) is not None:
            raise ValueError(problem)

    @field_validator("issued_before")
    @classmethod
    @of_constructor
    def _check_cutoff(cls, cutoff: datetime | None, info: ValidationInfo) -> None:
        if cutoff is not None and info.data.get("token_id") is None:
            require_past(cutoff, info)

    @model_validator(mode="after")
    def _check_subject(self, info: ValidationInfo) -> Self:
        if first_given(self._ONE_OF, self.__dict__) is None:
            raise ValueError(f"give at least one of {', '.join(self._ONE_OF)}")
        if self.token_id is None and self.issued_before is None and "occurred_at" in self.model_fields_set:
            require_past(self.occurred_at, info, "occurred_at ")
        return self

    def _is_comparable(self) -> bool:
        return self.claims is None and not self.everyone

    @classmethod
    def from_claims(
        cls,
        claims: Mapping[str, Any],
        *,
        reason: str | None = None,
        everywhere_else: bool = False,
        claim_names: ClaimNames | None = None,
    ) -> Self:
        """Return the event that revokes the token with these decoded claims, or all others of its user.

        Reads ``jti``, ``sub``, ``sid``, ``client_id`` (or ``azp``) and ``exp``. Without a ``jti`` the event revokes by
        the next wider identifier, as described on the class: ask `covers` what that is. It then has no ``expires_at``,
        because other tokens with that identifier may expire later than this one.

        The ``jti`` of some tokens names no access token. The claims of a logout token (OpenID Connect Back-Channel
        Logout) revoke its session, else its user; those of a refresh token or an ID token, by ``typ``, ``token_use``,
        ``token_type`` or ``type``, revoke the session in ``sid``.

        An identifier that cannot be published as it is, because it is too long or looks like a token, is named by its
        SHA-256. Empty identifiers count as missing.

        Args:
            claims: the verified payload of the token.
            reason: text for people.
            everywhere_else: revoke all tokens of the user in ``sub`` but those of the session in ``sid``.
            claim_names: the names of these claims, as the revocation lists have them, if they are not these.

        Raises:
            InvalidClaims: with ``everywhere_else``, ``sub`` or ``sid`` is missing; or they are those of a refresh token
                without ``sid``, of a logout token without ``sid`` and ``sub``, or of another security event token.
            pydantic.ValidationError: a claim has the wrong type, or all identifiers are missing.
            TypeError: ``claims`` is not a mapping: decode the token first.
        """
        if not isinstance(claims, Mapping):
            raise TypeError(f"claims must be a mapping, the decoded payload of a token, not {type(claims).__name__}")
        read = revocation_of_others if everywhere_else else revocation_from
        return cls(**read(claims, claim_names_of(claim_names)), reason=reason)

    @property
    def covers(self) -> str:
        """What this event revokes, in a sentence for people; identifiers are shown as fingerprints."""
        return covered_by(self)

    @property
    def needed_until(self) -> datetime | None:
        """The later of ``expires_at`` and of the cutoff of a rule wider than a token; ``None`` if neither is given."""
        if self.token_id is not None or self.issued_before is None:
            return self.expires_at
        return max(self.issued_before, self.expires_at or self.issued_before)


class TokenExpired(Event):
    """A token expired.

    Attributes:
        token_id: the token's ``jti``.
        user_id: the ``sub``.
        session_id: the ``sid``.
        expired_at: the token's ``exp``.
    """

    _IS_COMPARABLE: ClassVar[bool] = True
    _SUBJECT: ClassVar[tuple[str, ...]] = ("token_id",)

    type: Literal[EventType.TOKEN_EXPIRED] = EventType.TOKEN_EXPIRED
    token_id: TokenId
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    expired_at: Instant | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.TokenExpiredParameters]) -> None: ...


class KeyRotated(Event):
    """A signing key came into use, or leaked.

    An event is about one or the other: that a key leaked and which one replaces it takes two events. One that another
    program published all the same is read so that no key is trusted that may have leaked.

    Attributes:
        key_id: the ``kid`` of the new key; with ``compromised``, of the key that must not be trusted any more.
        previous_key_id: the ``kid`` of the key that it replaces.
        issuer: the ``iss`` of tokens signed with the key.
        algorithm: the ``alg``, for example ``ES256``.
        active_from: when the issuer begins to sign with the key; ``None`` means at once.
        retire_at: when the previous key is withdrawn; needs ``previous_key_id``.
        compromised: whether the key ``key_id`` leaked: tokens signed with it are refused from now on. Goes neither with
            ``previous_key_id`` nor with ``active_from``.
    """

    _SUBJECT: ClassVar[tuple[str, ...]] = ("key_id",)

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

    @field_validator("previous_key_id", "retire_at", "compromised")
    @classmethod
    @of_constructor
    def _check_clarity(cls, value: object, info: ValidationInfo) -> None:
        if (problem := ambiguity(str(info.field_name), value, info.data)) is not None:
            raise ValueError(problem)

    @property
    def covers(self) -> str:
        """What this event revokes, in a sentence for people; identifiers are shown as fingerprints."""
        return covered_by_keys(compromised_keys(self))


class SessionCreated(Event):
    """A user logged in.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        client_id: the client that the user logged in with.
        expires_at: when the session expires. A durable transport refuses an event that outlives its retention, because
            it could not revoke such a session reliably.
    """

    _IS_COMPARABLE: ClassVar[bool] = True
    _SUBJECT: ClassVar[tuple[str, ...]] = ("session_id",)

    type: Literal[EventType.SESSION_CREATED] = EventType.SESSION_CREATED
    session_id: Identifier
    user_id: Identifier
    client_id: Identifier | None = None
    expires_at: Instant | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.SessionCreatedParameters]) -> None: ...

    @property
    def needed_until(self) -> datetime | None:
        """Same as ``expires_at``."""
        return self.expires_at


class SessionDestroyed(Event):
    """A user logged out, or was logged out: the tokens of the session must be refused.

    Attributes:
        session_id: the ``sid``.
        user_id: the ``sub``.
        expires_at: when its last token expires and the rule may be dropped; ``None`` means for ever;
            without a ledger, as long as the transport keeps the event.
        reason: text for people, at most 1,024 characters.
    """

    _IS_COMPARABLE: ClassVar[bool] = True
    _SUBJECT: ClassVar[tuple[str, ...]] = ("session_id",)

    type: Literal[EventType.SESSION_DESTROYED] = EventType.SESSION_DESTROYED
    session_id: Identifier
    user_id: Identifier | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.SessionDestroyedParameters]) -> None: ...

    @field_validator("occurred_at")
    @classmethod
    @of_constructor
    def _check_cutoff(cls, cutoff: datetime, info: ValidationInfo) -> None:
        require_past(cutoff, info)

    @property
    def covers(self) -> str:
        """What this event revokes, in a sentence for people; identifiers are shown as fingerprints."""
        return covered_in_session(self.session_id, self.occurred_at)

    @property
    def needed_until(self) -> datetime | None:
        """Same as ``expires_at``: afterwards every token of the session has expired."""
        return self.expires_at


class UnknownEvent(Event):
    """An event of a type that this version does not know; only handlers of every event receive it.

    Attributes:
        type: the type exactly as it was on the wire, for example ``jwt.session_paused.v1``.
        data: its content as received, without ``metadata``.
    """

    type: Identifier
    data: Data = Field(default_factory=dict)

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[parameters.UnknownEventParameters]) -> None: ...

    @model_validator(mode="after")
    def _check_metadata_once(self) -> Self:
        if "metadata" in self.data and (self.metadata or isinstance(self.data["metadata"], dict)):
            raise ValueError("data holds metadata, which is a field of its own")
        return self


EVENT_CLASSES: Mapping[EventType, type[Event]] = {
    EventType.TOKEN_REVOKED: TokenRevoked,
    EventType.TOKEN_EXPIRED: TokenExpired,
    EventType.KEY_ROTATED: KeyRotated,
    EventType.SESSION_CREATED: SessionCreated,
    EventType.SESSION_DESTROYED: SessionDestroyed,
}
"""Event class of each known type."""
