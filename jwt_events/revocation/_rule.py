"""One rule, and which rules an event puts in force. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jwt_events.errors import InvalidOption
from jwt_events.events import (
    ALIAS_PREFIX,
    Event,
    KeyRotated,
    SessionDestroyed,
    TokenRevoked,
    compared,
    compromised_keys,
)
from jwt_events.revocation._claims import RuleKind, digest
from jwt_events.revocation._narrowed import WITHOUT_IDENTIFIER, Conditions
from jwt_events.revocation._packed import EVERY_TOKEN

# Seconds for which a rule is kept after everything that it covers has expired: services accept tokens for a while after
# their ``exp``, and clocks differ. A rule that is kept too long does no harm.
GRACE = 600.0


class Rule(NamedTuple):
    """The rule that an event puts in force.

    Attributes:
        kind: the kind of identifier that it names.
        digest: the digest of that identifier.
        cutoff: tokens issued up to this instant are revoked, in milliseconds since 1970; or `EVERY_TOKEN`.
        expires_at: when it may be removed, in seconds since 1970; ``None`` if the event does not say.
        is_aliased: whether the event names an identifier by another name than the claims of its tokens.
        names: that identifier, or both, as the event has them.
        spared_session: the session whose tokens live; ``None`` if there is none.
        conditions: what the claims of its tokens are.
    """

    kind: RuleKind
    digest: int
    cutoff: int
    expires_at: float | None
    is_aliased: bool = False
    names: tuple[str, ...] = ()
    spared_session: str | None = None
    conditions: Conditions = frozenset()

    @property
    def is_narrowed(self) -> bool:
        """Whether one identifier does not tell which tokens it covers."""
        return self.spared_session is not None or bool(self.conditions) or self.kind in WITHOUT_IDENTIFIER

    def ends_at(self, *, now: float, lasting: float | None) -> float:
        """Return when nothing that the rule covers can be alive, in seconds since 1970; infinite for never.

        Args:
            now: the time now, in seconds since 1970.
            lasting: how many seconds it is needed if the event does not say; ``None`` for ever.
        """
        if self.kind == "key":
            return math.inf  # an attacker with the key can sign tokens that never expire
        until, cutoff = self.expires_at, 0.0 if self.kind == "token" else self.cutoff / 1000
        if until is None or until < cutoff:  # a token that is issued at the cutoff cannot have expired before
            return math.inf if lasting is None else max(now, cutoff) + lasting
        return until


def rules_of(event: Event) -> tuple[Rule, ...]:
    """Return the rules that an event puts in force, nearly always one; empty if it revokes nothing.

    Raises:
        InvalidOption: ``event`` is not an event.
    """
    make_rules = _RULE_MAKERS.get(type(event))
    if make_rules is None:
        if not isinstance(event, Event):
            raise InvalidOption("event", f"must be an event, not {type(event).__name__}")
        return ()
    return make_rules(event)


def _rules_of_token_revoked(event: TokenRevoked) -> tuple[Rule]:
    cutoff = _cutoff(event.issued_before or event.occurred_at)
    if event.everyone:  # from elsewhere, also beside an identifier: no token is trusted that may be revoked
        return (_rule("everyone", cutoff=cutoff, expires_at=event.expires_at),)
    conditions = frozenset((name, compared(value)) for name, value in (event.claims or {}).items())
    rule = _rule_about_narrowest(event.__dict__, cutoff)
    return (rule._replace(conditions=conditions) if conditions else rule,)


def rule_from(occurred_at: datetime, fields: Mapping[str, Any]) -> Rule:
    """Return the rule of a `SessionDestroyed`, or of a `TokenRevoked` without ``claims`` and ``everyone``.

    Args:
        occurred_at: when it occurred.
        fields: the fields that are given.
    """
    return _rule_about_narrowest(fields, _cutoff(fields.get("issued_before") or occurred_at))


def _rule_about_narrowest(fields: Mapping[str, Any], cutoff: int) -> Rule:
    """Return the rule about the narrowest identifier that is given."""
    given, expires_at = fields.get, fields.get("expires_at")
    if (token := given("token_id")) is not None:
        return _rule("token", token, cutoff=EVERY_TOKEN, expires_at=expires_at)
    if (session := given("session_id")) is not None:
        return _rule("session", session, cutoff=cutoff, expires_at=expires_at)
    user, client = given("user_id"), given("client_id")
    if user is not None:
        if client is None:
            rule = _rule("user", user, cutoff=cutoff, expires_at=expires_at)
        else:
            rule = _rule("user_at_client", user, client, cutoff=cutoff, expires_at=expires_at)
        spared = given("except_session_id")
        return rule if spared is None else rule._replace(spared_session=spared)
    if client is not None:
        return _rule("client", client, cutoff=cutoff, expires_at=expires_at)
    return _rule("claims", cutoff=cutoff, expires_at=expires_at)


def _rules_of_session_destroyed(event: SessionDestroyed) -> tuple[Rule]:
    return (_rule("session", event.session_id, cutoff=_cutoff(event.occurred_at), expires_at=event.expires_at),)


def _rule(kind: RuleKind, *names: str, cutoff: int, expires_at: datetime | None) -> Rule:
    return rule_about(kind, names, cutoff, None if expires_at is None else expires_at.timestamp())


def _rules_of_key_rotated(event: KeyRotated) -> tuple[Rule, ...]:
    return tuple(_rule("key", key, cutoff=EVERY_TOKEN, expires_at=None) for key in compromised_keys(event))


_RULE_MAKERS: Mapping[type[Event], Callable[..., tuple[Rule, ...]]] = {
    TokenRevoked: _rules_of_token_revoked,
    SessionDestroyed: _rules_of_session_destroyed,
    KeyRotated: _rules_of_key_rotated,
}


def rule_about(kind: RuleKind, names: tuple[str, ...], cutoff: int, expires_at: float | None = None) -> Rule:
    """Return the rule about an identifier, about both, or about none."""
    is_aliased = kind != "key" and any(name.startswith(ALIAS_PREFIX) for name in names)
    return Rule(kind, digest(*names) if names else 0, cutoff, expires_at, is_aliased, names)


def _cutoff(instant: datetime) -> int:
    """Return an instant in milliseconds since 1970, rounded up: a token issued within that millisecond is covered.

    An instant too late to be stored becomes `EVERY_TOKEN`.
    """
    return max(1, min(EVERY_TOKEN, math.ceil(instant.timestamp() * 1000)))
