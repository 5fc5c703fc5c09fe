"""Rules and clock against a model that keeps everything: no clock step lets a revoked, living token in again.

With exemptions, conditions and rules about everyone, which are merged, beside the plain ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jwt_events import Event, EventType, KeyRotated, SessionDestroyed, TokenRevoked
from jwt_events.events import name_of, receive_event
from jwt_events.revocation._rules import Rules
from jwt_events.revocation._view import SteadyClock
from tests.support.examples import received

BEGIN = 1_772_366_400_000  # milliseconds since 1970, as all that the model calculates with
HOUR = 3_600_000
LIFE = 2 * HOUR
"""The longest lifetime of a token, and the retention."""

ACCEPTED_AFTER_EXP = 10 * 60_000
"""How long services may accept a token after its expiry, because their clocks differ."""

# Few names and few durations, so that events often match tokens.
_names = st.sampled_from(["a", "a", "b", "long" * 150])
_ids = st.sampled_from(["a", "b", "x.y.z"])
_kids = st.sampled_from(["a", "a", "b"])
_orgs = st.sampled_from(["x", "y"])
_durations = st.sampled_from([1, 2_500, HOUR // 6, HOUR, LIFE])
_expiries = st.none() | st.sampled_from([0, HOUR // 2, LIFE])


@dataclass(frozen=True)
class Token:
    """An issued token.

    Attributes:
        claims: its claims.
        issued_at: when it was issued, in milliseconds, with or without an ``iat``.
        expires_at: when it expires.
    """

    claims: dict[str, object]
    issued_at: int
    expires_at: int


@dataclass(frozen=True)
class Revocation:
    """The tokens that an event revokes, according to the documentation.

    Attributes:
        event: the event.
        claims: the claims of the tokens that it covers, by name.
        sent_at: when it was sent, in milliseconds.
        cutoff: tokens issued up to then are revoked; ``None`` for all tokens.
        good_until: when its rule may be removed; ``None`` if the event does not say.
        spared: the session whose tokens it spares; ``None`` for none.
        org: a value of the claim ``org`` of the tokens that it covers; ``None`` for any.
    """

    event: Event
    claims: dict[str, str]
    sent_at: int
    cutoff: int | None = None
    good_until: int | None = None
    spared: str | None = None
    org: str | None = None

    def covers(self, token: Token, *, leeway: int) -> bool:
        """Return whether it revokes the token."""
        for name, value in self.claims.items():
            if value not in [token.claims.get(claim) for claim in (("client_id", "azp") if name == "azp" else (name,))]:
                return False
        if self.spared is not None and token.claims.get("sid") == self.spared:
            return False
        found = token.claims.get("org")
        if self.org is not None and self.org not in (found if isinstance(found, list) else [found]):
            return False
        return self.cutoff is None or "iat" not in token.claims or token.issued_at <= self.cutoff + leeway

    def must_be_known_for(self, token: Token, *, leeway: int) -> bool:
        """Return whether its rule must be kept while the token lives: not for a token issued after its cutoff.

        Such a token is covered all the same if its id was revoked before it was issued, or if it has no ``iat``.
        """
        if "kid" in self.claims:
            return True
        latest = self.sent_at if self.cutoff is None else self.cutoff + leeway
        is_good = self.good_until is None or self.good_until < (self.cutoff or 0) or token.expires_at <= self.good_until
        return token.issued_at <= latest and is_good


def instant(milliseconds: int) -> datetime:
    """Convert milliseconds since 1970 to a datetime, without a rounding error."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@dataclass
class Clocks:
    """The clocks of a machine.

    Attributes:
        true: the real time in milliseconds since 1970.
        skew: how much the wall clock is ahead, in milliseconds.
    """

    true: int = BEGIN
    skew: int = 0

    def wall(self) -> float:
        """Return the time of `time.time`."""
        return (self.true + self.skew) / 1000

    def monotonic(self) -> float:
        """Return the time of `time.monotonic`."""
        return (self.true - BEGIN) / 1000 + 12_345.678


@dataclass
class Model:
    """All events and all tokens, in plain lists."""

    leeway: int
    sent: list[Revocation] = field(default_factory=list)
    taken: list[Revocation] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)


class RulesAndModel(RuleBasedStateMachine):
    """Issues, revokes, delivers late and twice, steps clocks and sweeps; checks every token after each step."""

    @initialize(leeway=st.sampled_from([0, 1, 2_500]))
    def begin(self, leeway: int) -> None:
        """Start without rules."""
        self.clocks = Clocks()
        self.steady_clock = SteadyClock(self.clocks.wall, self.clocks.monotonic)
        self.known = Rules(epoch=self.steady_clock.now(), retention=timedelta(milliseconds=LIFE), leeway=leeway / 1000)
        self.model = Model(leeway)
        self.sweep: Iterator[int] = iter(())

    @rule(
        names=st.fixed_dictionaries(
            {"jti": _ids, "sub": _names, "sid": _names},
            optional={
                "azp": _names,
                "client_id": st.just("") | _names,
                "kid": _kids,
                "org": _orgs | st.lists(_orgs, max_size=2),
            },
        ),
        ago=st.sampled_from([0, 0, 1, 1_000, HOUR]),
        life=st.sampled_from([HOUR, LIFE]) | st.integers(1, LIFE),
        has_iat=st.booleans(),
    )
    def issue(self, names: dict[str, object], ago: int, life: int, has_iat: bool) -> None:
        """Issue a token, now or in the past."""
        self._issue(names, self.clocks.true - ago, life)
        if not has_iat:
            del names["iat"]

    @rule(
        about=st.sampled_from([("jti",), ("sid",), ("sub",), ("azp",), ("sub", "azp")]),
        names=st.tuples(_names | _ids, _names),
        until=st.none() | st.sampled_from([-HOUR, -1, 1_000, HOUR, 5 * LIFE]),
        expires_in=_expiries,
    )
    def revoke(self, about: tuple[str, ...], names: tuple[str, str], until: int | None, expires_in: int | None) -> None:
        """Revoke a token, or the tokens of a session, a user, a client, or a user at a client."""
        claims = dict(zip(about, names, strict=False))
        cutoff = self.clocks.true + (until or 0)
        fields = {
            "token_id": name_of(claims["jti"], is_token=True) if "jti" in claims else None,
            "session_id": name_of(claims["sid"]) if "sid" in claims else None,
            "user_id": name_of(claims["sub"]) if "sub" in claims else None,
            "client_id": name_of(claims["azp"]) if "azp" in claims else None,
            "occurred_at": instant(self.clocks.true),
            "issued_before": None if until is None else instant(cutoff),
            "expires_at": self._later(expires_in),
        }
        event = receive_event(TokenRevoked, fields)  # the clock of the model is not that of this machine
        self._send(claims, event, None if "jti" in claims else cutoff, expires_in)

    @rule(
        about=st.sampled_from([("sub",), ("sub",), ("sub", "azp"), ("jti",), ("sid",), ("azp",), ()]),
        names=st.tuples(_names, _names),
        spared=st.none() | _names,
        org=st.none() | _orgs,
        until=st.none() | st.sampled_from([-HOUR, -1, 1_000, HOUR]),
        expires_in=_expiries,
    )
    def revoke_narrowed(
        self,
        *,
        about: tuple[str, ...],
        names: tuple[str, str],
        spared: str | None,
        org: str | None,
        until: int | None,
        expires_in: int | None,
    ) -> None:
        """Revoke what a user has but in one session, or what also carries a claim; or everyone's tokens."""
        claims = dict(zip(about, names, strict=False))
        cutoff = self.clocks.true + (until or 0)
        fields: dict[str, object] = {
            field: name_of(claims[claim], is_token=claim == "jti")
            for field, claim in (("token_id", "jti"), ("session_id", "sid"), ("user_id", "sub"), ("client_id", "azp"))
            if claim in claims
        }
        if "sub" not in claims:
            spared = None
        fields |= {} if org is None else {"claims": {"org": org}}
        fields |= {} if spared is None else {"except_session_id": name_of(spared)}
        fields |= {} if fields else {"everyone": True}
        fields |= {"occurred_at": instant(self.clocks.true), "expires_at": self._later(expires_in)}
        fields["issued_before"] = None if until is None else instant(cutoff)
        event = receive_event(TokenRevoked, fields)
        self._send(claims, event, None if "jti" in claims else cutoff, expires_in, spared=spared, org=org)

    @rule(name=_names, expires_in=_expiries)
    def end_session(self, name: str, expires_in: int | None) -> None:
        """Destroy a session."""
        event = SessionDestroyed(
            session_id=name_of(name), occurred_at=instant(self.clocks.true), expires_at=self._later(expires_in)
        )
        self._send({"sid": name}, event, self.clocks.true, expires_in)

    @rule(name=_kids)
    def lose_key(self, name: str) -> None:
        """Declare a key compromised."""
        self._send({"kid": name}, KeyRotated(key_id=name, compromised=True), None, None)

    @rule(names=st.tuples(_kids, _kids))
    def lose_a_key_of_two(self, names: tuple[str, str]) -> None:
        """Receive a rotation that says of two keys that one is compromised: both are."""
        new, previous = names
        event = received(EventType.KEY_ROTATED, key_id=new, previous_key_id=previous, compromised=True)
        for name in names:
            self._send({"kid": name}, event, None, None)

    @rule(chance=st.randoms(use_true_random=False))
    def deliver(self, chance: random.Random) -> None:
        """Deliver everything that was sent, once more or for the first time, in any order."""
        for revocation in chance.sample(self.model.sent, len(self.model.sent)):
            self.known.apply(revocation.event, now=self.steady_clock.now())
        self.model.taken = list(self.model.sent)

    @rule(milliseconds=_durations | st.integers(0, LIFE))
    def wait(self, milliseconds: int) -> None:
        """Advance the time, and remove expired rules."""
        self.clocks.true += milliseconds
        self.start_sweep()
        self.finish_sweep()

    @rule(skew=st.sampled_from([-HOUR, 0, HOUR]))
    def set_the_clock(self, skew: int) -> None:
        """Step the wall clock of this machine, just before expired rules are removed."""
        self.clocks.skew = skew
        self.start_sweep()
        self.finish_sweep()

    @rule()
    def start_sweep(self) -> None:
        """Start a sweep, and stop after one slice."""
        self.sweep = self.known.sweep(now=self.steady_clock.earliest())
        next(self.sweep, None)

    @rule()
    def finish_sweep(self) -> None:
        """Finish the sweep, with the time at which it started."""
        for _ in self.sweep:
            pass

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Every living token that an event revokes is revoked, and no token that no event has ever revoked."""
        if not hasattr(self, "model"):
            return
        leeway = self.model.leeway
        for token in self.model.tokens:
            covering = [one for one in self.model.taken if one.covers(token, leeway=leeway)]
            must = token.expires_at + ACCEPTED_AFTER_EXP > self.clocks.true and any(
                one.must_be_known_for(token, leeway=leeway) for one in covering
            )
            is_revoked = self.known.revokes(token.claims)
            assert is_revoked or not must, f"{token} was let in"
            assert covering or not is_revoked, f"{token} was refused"

    def _later(self, milliseconds: int | None) -> datetime | None:
        return None if milliseconds is None else instant(self.clocks.true + milliseconds)

    def _send(
        self,
        claims: dict[str, str],
        event: Event,
        cutoff: int | None,
        expires_in: int | None,
        *,
        spared: str | None = None,
        org: str | None = None,
    ) -> None:
        good_until = None if expires_in is None else self.clocks.true + expires_in
        self.model.sent.append(Revocation(event, claims, self.clocks.true, cutoff, good_until, spared, org))
        latest = self.clocks.true if cutoff is None else cutoff + self.model.leeway
        carried: dict[str, object] = {**claims} if org is None else {**claims, "org": [org, "z"]}
        sparing: list[dict[str, object]] = [] if spared is None else [{"sid": spared}]
        for more in ({}, *sparing):
            for issued_at in (latest, latest + 1):
                life = LIFE if good_until is None else min(LIFE, good_until - issued_at)
                self._issue(carried | more, issued_at, life)

    def _issue(self, claims: dict[str, object], issued_at: int, life: int) -> None:
        claims["iat"] = issued_at / 1000 if issued_at % 1000 else issued_at // 1000
        self.model.tokens.append(Token(claims, issued_at, issued_at + life))


TestRulesAndModel = RulesAndModel.TestCase
TestRulesAndModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
