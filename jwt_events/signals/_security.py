"""`SecurityEvents`: security event tokens (RFC 8417, SSF 1.0), verified and turned into events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jwt_events._internal import options
from jwt_events._internal.functions import function
from jwt_events.events import Event, EventType
from jwt_events.signals._identity import build, event_id, instant, metadata, reason_of
from jwt_events.signals._mapping import APPLE, RISC, SSF, Effect, Entry, Signal, effect_of, kind_of, merge
from jwt_events.signals._resolution import Resolution, Resolver, Subject
from jwt_events.signals._subjects import parse_subject
from jwt_events.signals._token import ASYMMETRIC, SignedToken, parse_object, refused
from jwt_events.signals._verifier import Keys, Verifier, date, identifier

VERIFICATION = f"{SSF}verification"
STREAM_UPDATED = f"{SSF}stream-updated"
_ABOUT_THE_STREAM = frozenset({VERIFICATION, STREAM_UPDATED, f"{RISC}verification"})  # the last is Google's

GOOGLE_ISSUER = "https://accounts.google.com"
APPLE_ISSUER = "https://appleid.apple.com"

_MAX_EVENTS = 8  # a token may say the same thing in the words of several profiles
_MAX_SECONDS = 1e11  # above it, an instant is in milliseconds, as older drafts of CAEP had it


@dataclass(frozen=True, slots=True)
class Received:
    """A verified security event token.

    Attributes:
        signals: what it says.
        events: the events to publish, in order; none if it does nothing here.
        verification: whether it is a verification event of the stream.
        state: the ``state`` of a verification event.
        status: the new ``status`` in a stream-updated event.
    """

    signals: tuple[Signal, ...]
    events: tuple[Event, ...]
    verification: bool = False
    state: str | None = None
    status: str | None = None

    @property
    def kind(self) -> str:
        """Short name of the type, from a fixed set."""
        return kind_of(self.signals[0].type)


class SecurityEvents:
    """Verifies the security event tokens of one transmitter and turns them into events.

    ::

        events = SecurityEvents("https://id.example", "https://receiver.example", SigningKeys(fetch))
        await publisher.publish_many(await events.events(token))

    A token that is sent again, or to several instances, makes the same events, with ids that come from ``iss`` and
    ``jti``. Events about the stream itself make none. Keeps no state between calls.

    The subject ``iss_sub`` of the same issuer is the ``sub`` of the tokens, ``jwt_id`` their ``jti``; all others are
    asked of ``subject``. A subject that is unknown is refused, never guessed.

    Args:
        issuer: the ``iss``, exactly as in the stream's configuration.
        audience: the ``aud`` of the stream, or several.
        keys: the transmitter's `SigningKeys`, or a function, plain or async, that takes the ``kid`` and returns the
            ``PyJWK``, or ``None`` for an unknown one.
        subject: resolves subject identifiers: a function, plain or async, that takes a `SubjectId` and returns the id
            of the user (of the session, if its ``role`` is ``session``), a `Subject`, or ``None`` if it is unknown.
        mapping: effects by the URI of an event's type, in place of those in ``DEFAULT_MAPPING``.
        leeway: seconds that clocks may differ.
        algorithms: the signature algorithms that are accepted; ``none`` never is.
        critical: the stream's ``critical_subject_members``: parts of a complex subject, besides ``user`` and
            ``session``, that must be resolved or the token is refused.
        same_ids: whether the transmitter's ``sub`` and ``jti`` are those of the tokens that your services check; if
            not, its ``iss_sub`` and ``jwt_id`` are asked of ``subject`` too.

    Raises:
        InvalidOption: an option cannot work.
        ImportError: the extra ``keys`` is not installed.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Iterable[str],
        keys: Keys,
        *,
        subject: Resolver | None = None,
        mapping: Mapping[str, Entry] | None = None,
        leeway: float = 60.0,
        algorithms: Iterable[str] = ASYMMETRIC,
        critical: Iterable[str] = (),
        same_ids: bool = True,
    ) -> None:
        self._verifier = Verifier(issuer, audience, keys, leeway=leeway, allowed=algorithms)
        resolver = None if subject is None else function("subject", subject)
        same = options.flag("same_ids", same_ids)
        self._resolution = Resolution(issuer if same else "", resolver, frozenset(critical))
        self._mapping = merge(mapping)
        self._is_apple = issuer.rstrip("/") == APPLE_ISSUER

    def __repr__(self) -> str:
        return f"<SecurityEvents of {self.issuer}>"

    @property
    def issuer(self) -> str:
        """The issuer whose tokens are accepted."""
        return self._verifier.issuer

    async def events(self, token: str) -> list[Event]:
        """Return the events that a security event token stands for: none for types that do nothing here.

        Cancelling is safe.

        Raises:
            SignalRefused: it is not valid, or about an unknown subject.
            Unavailable: the keys cannot be fetched at the moment; try again.
        """
        return list((await self.receive(token)).events)

    async def receive(self, token: str) -> Received:
        """Verify a token and return all that it says; raises as `events` does."""
        verified = await self._verifier.verify(token, self._check)
        signals = self._signals(verified.claims)
        first = signals[0]
        if any(signal.type in _ABOUT_THE_STREAM for signal in signals):
            if len(signals) > 1:
                raise refused("an event about the stream is not alone in its token")
            return _about_the_stream(first)
        made: list[Event] = []
        for index, signal in enumerate(signals):
            effect = await effect_of(self._mapping.get(signal.type), signal)
            if effect is not Effect.IGNORE and (event := await self._event(signal, effect, index)) is not None:
                made.append(event)
        return Received(signals, tuple(made))

    def _check(self, token: SignedToken, now: float) -> None:
        """Refuse what is no security event token (SSF 1.0 §4.1)."""
        older = self._is_apple or self.issuer.rstrip("/") == GOOGLE_ISSUER
        claims = token.claims
        if token.typ != "secevent+jwt" and not (older and token.typ in (None, "jwt")):
            raise refused("the typ of the header is not secevent+jwt")
        if not older and "exp" in claims:
            raise refused("exp is not allowed in a security event token")
        if "sub" in claims:
            raise refused("sub is not allowed in a security event token; the subject is in sub_id")
        if "nonce" in claims:
            raise refused("a nonce is not allowed in a security event token")
        if claims.get("txn") is not None:
            identifier(claims["txn"], "txn")
        for signal in self._signals(claims):
            if signal.occurred_at.timestamp() > now + self._verifier.leeway:
                raise refused("the event lies in the future")

    def _signals(self, claims: dict[str, Any]) -> tuple[Signal, ...]:
        """Read the events of a token."""
        listed = self._listed(claims.get("events"))
        return tuple(self._signal(claims, uri, payload) for uri, payload in listed.items())

    def _listed(self, events: object) -> dict[str, dict[str, Any]]:
        if isinstance(events, str) and self._is_apple:
            payload = parse_object(events, "text of events")
            return {APPLE + identifier(payload.get("type"), "type"): payload}
        if not isinstance(events, dict) or not 0 < len(events) <= _MAX_EVENTS:
            raise refused(f"events must be an object with 1 to {_MAX_EVENTS} members")
        if not all(isinstance(payload, dict) for payload in events.values()):
            raise refused("each member of events must be an object")
        return events

    def _signal(self, claims: dict[str, Any], uri: str, payload: dict[str, Any]) -> Signal:
        subject = claims.get("sub_id")
        if uri.startswith(APPLE) and self._is_apple:
            inside: Any = {"format": "iss_sub", "iss": self.issuer, "sub": payload.get("sub")}
        else:
            inside = payload.get("subject")
        if subject is not None and inside is not None:
            raise refused("the subject is in sub_id and in the event")
        subject = inside if subject is None else subject
        return Signal(
            issuer=self.issuer,
            jti=claims["jti"],
            type=identifier(uri, "the type of the event"),
            payload=payload,
            subject=None if subject is None else parse_subject(subject),
            occurred_at=instant(_when(claims, payload)),
            txn=claims.get("txn"),
        )

    async def _event(self, signal: Signal, effect: Effect, index: int) -> Event | None:
        if signal.subject is None:
            raise refused("the subject is missing")
        subject = await self._resolution.resolve(signal.subject)
        kind = kind_of(signal.type)
        common: dict[str, Any] = {
            "id": event_id(signal.issuer, signal.jti, index),
            "occurred_at": signal.occurred_at,
            "metadata": metadata(
                issuer=signal.issuer, signal=signal.type, txn=signal.txn, reason=reason_of(dict(signal.payload))
            ),
        }
        if effect is Effect.CREATE_SESSION:
            if subject.session_id is None or subject.user_id is None:
                return None
            named = {"session_id": subject.session_id, "user_id": subject.user_id}
            return build(EventType.SESSION_CREATED, **named, **common)
        common |= {"reason": kind}
        return _revocation(subject, effect, common, signal)


def _revocation(subject: Subject, effect: Effect, common: dict[str, Any], signal: Signal) -> Event:
    """Return the event that revokes what a subject names."""
    if effect is Effect.REVOKE_USER and subject.user_id is not None:
        return build(EventType.TOKEN_REVOKED, user_id=subject.user_id, issued_before=signal.occurred_at, **common)
    if effect is Effect.REVOKE_USER and subject.token_id is None and subject.session_id is None:
        raise refused("the subject is unknown here")
    if subject.token_id is not None:
        return build(EventType.TOKEN_REVOKED, token_id=subject.token_id, user_id=subject.user_id, **common)
    if subject.session_id is not None:
        return build(EventType.SESSION_DESTROYED, session_id=subject.session_id, user_id=subject.user_id, **common)
    return build(EventType.TOKEN_REVOKED, user_id=subject.user_id, issued_before=signal.occurred_at, **common)


def _about_the_stream(signal: Signal) -> Received:
    state, status = signal.payload.get("state"), signal.payload.get("status")
    if signal.type != STREAM_UPDATED:
        return Received((signal,), (), True, None if state is None else identifier(state, "state"))
    return Received((signal,), (), status=identifier(status, "status"))


def _when(claims: dict[str, Any], payload: dict[str, Any]) -> float:
    """Return when an event happened: by the event itself, else by the token."""
    for source, name in ((payload, "event_timestamp"), (payload, "event_time"), (claims, "toe")):
        value = source.get(name)
        if value is not None:
            in_milliseconds = isinstance(value, int | float) and not isinstance(value, bool) and value >= _MAX_SECONDS
            return date(value / 1000 if in_milliseconds else value, name)
    return date(claims["iat"], "iat")
