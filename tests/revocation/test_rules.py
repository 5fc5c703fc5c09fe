"""Revocation rules: every kind of rule, every form of claims, and when a rule is removed."""

from __future__ import annotations

import gc
import random
from collections import ChainMap, UserDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jwt_events import (
    Event,
    EventType,
    InvalidClaims,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
)
from jwt_events.events import name_of
from jwt_events.revocation._claims import digest, subjects_of
from jwt_events.revocation._packed import EVERY_TOKEN, AnyRule, RuleSet
from jwt_events.revocation._rules import Match, Rules
from tests.support.examples import COMPACT_JWT, received
from tests.support.strategies import known_events, unknown_events

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
T = int(NOW.timestamp())
DAY = timedelta(days=1)
TICK = 600
GRACE = 600


class OddText(str):
    """Text with its own hash function."""

    __slots__ = ()

    def __hash__(self) -> int:
        """Return a constant."""
        return 5


class Name(StrEnum):
    """Text that is a member of an enumeration."""

    ALICE = "alice"


class Claims(dict[str, object]):
    """A subclass of dict."""


def rules_of(*events: Event, retention: timedelta | None = DAY, leeway: float = 0.0) -> Rules:
    """Make rules from events that are applied now."""
    rules = Rules(epoch=T, retention=retention, leeway=leeway)
    for event in events:
        rules.apply(event, now=T)
    return rules


def revoke(**fields: Any) -> TokenRevoked:
    """Make an event that occurred now."""
    return TokenRevoked(**({"occurred_at": NOW} | fields))


def sweep(rules: Rules, now: float) -> int:
    """Remove expired rules, and return their count."""
    return sum(rules.sweep(now=now))


class TestKinds:
    """Each kind of rule covers the tokens with its identifier, and no others."""

    @pytest.mark.parametrize(
        ("event", "covered"),
        [
            (revoke(token_id="a"), {"jti": "a"}),
            (revoke(session_id="a"), {"sid": "a"}),
            (revoke(user_id="a"), {"sub": "a"}),
            (revoke(user_id="a", client_id="c"), {"sub": "a", "client_id": "c"}),
            (revoke(user_id="a", client_id="c"), {"sub": "a", "azp": "c"}),
            (revoke(client_id="a"), {"client_id": "a"}),
            (revoke(client_id="a"), {"azp": "a"}),
            (SessionDestroyed(session_id="a", user_id="u", occurred_at=NOW), {"sid": "a"}),
            (revoke(client_id="a"), {"client_id": "gateway", "azp": "a"}),
            (revoke(client_id="a"), {"client_id": "a", "azp": "gateway"}),
            (revoke(user_id="a", client_id="c"), {"sub": "a", "client_id": "gateway", "azp": "c"}),
            (revoke(user_id="a", client_id="c"), {"sub": "a", "client_id": "c", "azp": "gateway"}),
            (revoke(client_id="a"), {"client_id": "", "azp": "a"}),
            (KeyRotated(key_id="a", compromised=True), {"kid": "a"}),
        ],
    )
    def test_what_is_covered(self, event: Event, covered: dict[str, str]) -> None:
        """A token with these identifiers is covered; one that lacks any of them, or has another one instead, is not."""
        rules = rules_of(event)
        others = {"jti": "x", "sub": "x", "sid": "x", "kid": "x", "iat": T}
        assert rules.revokes({**covered, "iat": T})
        assert rules.revokes({**others, **covered})
        assert not rules.revokes({**others, "client_id": "x", "azp": "y"})
        for claim in covered.keys() - {name for name, value in covered.items() if value in ("gateway", "")}:
            assert not rules.revokes({**others, **covered, claim: "b"})
            assert not rules.revokes({name: value for name, value in covered.items() if name != claim} | {"iat": T})

    def test_no_kind_is_taken_for_another(self) -> None:
        """The same text as another kind of identifier does not match."""
        rules = rules_of(revoke(token_id="a"))
        assert not rules.revokes({"sub": "a", "sid": "a", "client_id": "a", "kid": "a", "iat": T})
        assert not rules_of(revoke(user_id="a", client_id="b")).revokes({"sub": "b", "client_id": "a", "iat": T})

    @pytest.mark.parametrize(
        ("event", "kind"),
        [
            (revoke(token_id="t", session_id="s", user_id="u", client_id="c"), "token"),
            (revoke(session_id="s", user_id="u", client_id="c"), "session"),
            (revoke(user_id="u", client_id="c"), "user_at_client"),
            (revoke(user_id="u"), "user"),
            (revoke(client_id="c"), "client"),
            (SessionDestroyed(session_id="s", user_id="u"), "session"),
        ],
    )
    def test_the_narrowest_identifier_decides(self, event: Event, kind: str) -> None:
        """An event makes one rule, about the narrowest of its identifiers."""
        rules = rules_of(event)
        assert {name for name, number in rules.counts.items() if number} == {kind}

    @pytest.mark.parametrize(("new", "previous"), [("new", "leaked"), ("leaked", "new"), ("leaked", "leaked")])
    def test_two_compromised_keys(self, new: str, previous: str) -> None:
        """A received rotation that says of two keys that one is compromised makes a rule about each."""
        event = received(EventType.KEY_ROTATED, key_id=new, previous_key_id=previous, compromised=True)
        rules = rules_of()
        assert {rule.digest for rule in rules.apply(event, now=T)} == {digest(new), digest(previous)}
        for kid in (new, previous):
            assert rules.revokes({"sub": "u", "iat": T, "kid": kid})
        assert not rules.revokes({"sub": "u", "iat": T, "kid": "another"})

    @pytest.mark.parametrize(
        "event",
        [
            TokenExpired(token_id="a"),
            KeyRotated(key_id="a"),
            SessionCreated(session_id="a", user_id="a"),
            UnknownEvent(type="jwt.other.v1"),
        ],
    )
    def test_what_makes_no_rule(self, event: Event) -> None:
        """Events that revoke nothing make no rule."""
        rules = rules_of()
        assert rules.apply(event, now=T) == ()
        assert sum(rules.counts.values()) == 0

    @given(known_events | unknown_events)
    def test_every_event(self, event: Event) -> None:
        """Every event can be applied, and rules can be removed afterwards."""
        rules = rules_of(event)
        sweep(rules, T + 10**9)


class TestCutoff:
    """A rule about more than one token covers the tokens issued up to its cutoff."""

    WIDE = pytest.mark.parametrize(
        ("subject", "claims"),
        [
            ({"session_id": "a"}, {"sid": "a"}),
            ({"user_id": "a"}, {"sub": "a"}),
            ({"user_id": "a", "client_id": "b"}, {"sub": "a", "azp": "b"}),
            ({"client_id": "a"}, {"azp": "a"}),
        ],
    )

    @WIDE
    def test_milliseconds_count(self, subject: dict[str, str], claims: dict[str, str]) -> None:
        """A token that was issued at the cutoff is covered, one issued a millisecond later is not."""
        rules = rules_of(revoke(**subject, issued_before=NOW + timedelta(milliseconds=250)))
        for iat in (T - 1, T, T + 0.249, T + 0.25):
            assert rules.revokes({**claims, "iat": iat})
        for iat in (T + 0.251, T + 1):
            assert not rules.revokes({**claims, "iat": iat})

    @WIDE
    def test_equal_seconds(self, subject: dict[str, str], claims: dict[str, str]) -> None:
        """A token whose ``iat`` is the second of the cutoff is covered."""
        rules = rules_of(revoke(**subject))
        assert rules.revokes({**claims, "iat": T})
        assert not rules.revokes({**claims, "iat": T + 1})

    @WIDE
    def test_without_iat(self, subject: dict[str, str], claims: dict[str, str]) -> None:
        """A token without ``iat`` is covered by every cutoff."""
        rules = rules_of(revoke(**subject, issued_before=0))
        assert rules.revokes(claims)
        assert rules.revokes({**claims, "iat": None})
        assert not rules.revokes({**claims, "iat": 1})

    def test_leeway(self) -> None:
        """A token issued up to the leeway after the cutoff is covered: the issuer's clock may be ahead."""
        rules = rules_of(revoke(user_id="a"), leeway=2.5)
        assert rules.revokes({"sub": "a", "iat": T + 2.5})
        assert not rules.revokes({"sub": "a", "iat": T + 2.501})

    def test_the_latest_of_all_decides(self) -> None:
        """Of all rules that match a token, the one with the latest cutoff counts, whatever its kind."""
        rules = rules_of(
            revoke(session_id="s", issued_before=T + 10),
            revoke(user_id="u", issued_before=T + 30),
            revoke(client_id="c", issued_before=T + 20),
        )
        claims = {"sid": "s", "sub": "u", "azp": "c"}
        assert rules.match(subjects_of({**claims, "iat": T + 25})) == Match("user", NOW + timedelta(seconds=30))
        assert rules.match(subjects_of({**claims, "iat": T + 31})) is None
        assert rules.revokes({"sid": "s", "azp": "c", "iat": T + 15})

    def test_a_token_rule_covers_all(self) -> None:
        """A token that was revoked by its id is revoked whatever its ``iat``."""
        rules = rules_of(revoke(token_id="t", issued_before=T), revoke(user_id="u"))
        assert rules.match(subjects_of({"jti": "t", "sub": "u", "iat": T + 10**6})) == Match("token", None)

    def test_a_cutoff_is_never_lowered(self) -> None:
        """An event with an earlier cutoff changes nothing."""
        rules = rules_of(revoke(user_id="u", issued_before=T + 60), revoke(user_id="u", issued_before=T - 60))
        assert rules.revokes({"sub": "u", "iat": T + 60})

    @pytest.mark.parametrize("year", [2108, 2110, 5100])
    def test_far_away(self, year: int) -> None:
        """A cutoff in the far future covers the tokens issued until then, and is never removed."""
        rules = rules_of(received(EventType.TOKEN_REVOKED, NOW, user_id="u", issued_before=f"{year}-01-01T00:00:00Z"))
        sweep(rules, T + 200 * 24 * 3600)
        assert rules.revokes({"sub": "u", "iat": int(datetime(year - 1, 12, 31, tzinfo=UTC).timestamp())})


class TestClaims:
    """Claims come from outside: whatever their form, the result is right or there is an `InvalidClaims`."""

    @pytest.mark.parametrize("claims", [None, "eyJ.eyJ.sig", b"", 1, [("jti", "a")], object()])
    def test_no_claims(self, claims: Any) -> None:
        """A value that is not a mapping is refused, without being quoted."""
        with pytest.raises(InvalidClaims, match="must be a mapping") as refused:
            rules_of().revokes(claims)
        assert refused.value.claim == "claims"
        assert "eyJ" not in str(refused.value)

    @pytest.mark.parametrize("claim", ["jti", "sub", "sid", "client_id", "azp", "kid"])
    @pytest.mark.parametrize("value", [7, 7.0, True, b"a", ["a"], {"a": 1}])
    def test_an_identifier_that_is_no_text(self, claim: str, value: object) -> None:
        """An identifier of another type is refused with the claim's name; the value is not quoted."""
        with pytest.raises(InvalidClaims, match=f"^{claim}: must be text, not {type(value).__name__}$") as refused:
            rules_of().revokes({claim: value, "iat": T})
        assert refused.value.claim == claim

    @pytest.mark.parametrize(
        "iat",
        [
            pytest.param("1772366400", id="text"),
            pytest.param(True, id="bool"),
            pytest.param(Decimal(T), id="decimal"),
            pytest.param(NOW, id="datetime"),
            pytest.param(float("nan"), id="nan"),
            pytest.param(float("inf"), id="infinity"),
            pytest.param(float("-inf"), id="minus infinity"),
            pytest.param(T * 1000, id="milliseconds"),
            pytest.param(10**400, id="huge"),
        ],
    )
    def test_an_iat_that_is_no_date(self, iat: object) -> None:
        """An ``iat`` that is not a number of seconds is refused, with a hint for milliseconds."""
        with pytest.raises(InvalidClaims, match=r"^iat: ") as refused:
            rules_of().revokes({"jti": "a", "iat": iat})
        assert refused.value.claim == "iat"
        assert ("milliseconds" in str(refused.value)) is (iat in (T * 1000, 10**400))

    @pytest.mark.parametrize("iat", [0, -1, -(10**400), 0.5, 99_999_999_999])
    def test_an_iat_of_another_age(self, iat: float) -> None:
        """Any number of seconds is accepted."""
        rules = rules_of(revoke(user_id="u"))
        assert rules.revokes({"sub": "u", "iat": iat}) is (iat <= T)

    def test_nothing_is_there(self) -> None:
        """Claims without identifiers match no rule."""
        rules = rules_of(revoke(token_id="a"), revoke(user_id="a"))
        assert not rules.revokes({})
        assert not rules.revokes({"jti": "", "sub": "", "iat": T})

    @pytest.mark.parametrize("value", [OddText("alice"), Name.ALICE])
    def test_text_of_another_class(self, value: str) -> None:
        """A subclass of str matches by its text, whatever its hash."""
        assert rules_of(revoke(user_id="alice")).revokes({"sub": value, "iat": T})
        assert rules_of(revoke(user_id=value)).revokes({"sub": "alice", "iat": T})

    @pytest.mark.parametrize("kind", [Claims, UserDict, MappingProxyType, ChainMap])
    def test_any_mapping(self, kind: Callable[[dict[str, object]], Mapping[str, object]]) -> None:
        """Claims may be any mapping."""
        rules = rules_of(revoke(user_id="u"))
        assert rules.revokes(kind({"sub": "u", "iat": T}))
        assert not rules.revokes(kind({"sub": "u", "iat": T + 1}))

    _odd_text = st.sampled_from(
        [
            *(None, "", "a", "b", "c", OddText("a"), Name.ALICE, 0, 1, 1.5, True, b"a", ()),
            *("x.y.z", "l" * 513, "\ud83d", " ", COMPACT_JWT),
        ]
    )
    _odd_numbers = (
        st.sampled_from([None, T, T + 1, T - 1, T + 0.5, True, False, "1", 10**400, -(10**400), Decimal(1), T * 1000])
        | st.floats()
        | st.integers()
    )
    _odd_claims: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("jti", "sub", "sid", "client_id", "azp", "kid"), _odd_text),
            "iat": _odd_numbers,
            "exp": st.none(),
        },
    )
    _kinds: st.SearchStrategy[Callable[[dict[str, object]], Mapping[str, object]]] = st.sampled_from(
        [dict, Claims, UserDict, MappingProxyType, ChainMap]
    )
    _some_rules = st.lists(
        st.sampled_from(
            [
                revoke(token_id="a"),
                revoke(session_id="a"),
                revoke(user_id="a"),
                revoke(user_id="alice"),
                revoke(user_id="b", client_id="a"),
                revoke(client_id="c"),
                KeyRotated(key_id="a", compromised=True),
                revoke(token_id=name_of("x.y.z", is_token=True)),
                revoke(user_id=name_of("l" * 513)),
                revoke(session_id=name_of("\ud83d")),
                revoke(client_id=name_of(" ")),
                revoke(user_id=name_of(COMPACT_JWT), client_id="a"),
            ]
        ),
        max_size=4,
    )

    @settings(max_examples=500)
    @given(_odd_claims, _kinds, _some_rules)
    def test_fast_path_agrees_with_match(
        self,
        content: dict[str, object],
        kind: Callable[[dict[str, object]], Mapping[str, object]],
        events: list[Event],
    ) -> None:
        """The fast path and `Rules.match` agree, also on the claims that they refuse."""
        rules, claims = rules_of(*events), kind(content)

        def outcome(decide: Callable[[], bool]) -> bool | str:
            try:
                return decide()
            except InvalidClaims as error:
                return error.claim

        assert outcome(lambda: rules.revokes(claims)) == outcome(lambda: rules.match(subjects_of(claims)) is not None)


class TestExpiry:
    """A rule is removed when no token that it covers can be alive; too late does no harm, too early would."""

    @staticmethod
    def _is_kept_until(rules: Rules, instant: float) -> None:
        """Check that the only rule is kept until ten minutes after that instant, and removed a tick later."""
        assert sweep(rules, instant + GRACE - 0.001) == 0
        assert sum(rules.counts.values()) == 1
        assert sweep(rules, instant + GRACE + TICK) == 1
        assert sum(rules.counts.values()) == 0

    @given(st.floats(0, 10**7), st.floats(0, 100))
    def test_at_its_expiry(self, after: float, leeway: float) -> None:
        """A rule with an expiry is kept until then, and ten minutes more."""
        event = revoke(user_id="u", expires_at=NOW + timedelta(seconds=after))
        self._is_kept_until(rules_of(event, leeway=leeway), T + after + leeway)

    @given(st.integers(1, 10**7), st.integers(0, 10**5))
    def test_after_the_retention(self, retention: int, after: int) -> None:
        """A rule without an expiry is kept for the retention, from its arrival or from its cutoff if that is later."""
        rules = rules_of(retention=timedelta(seconds=retention))
        rules.apply(revoke(user_id="u"), now=T + after)
        self._is_kept_until(rules, T + after + retention)
        rules.apply(revoke(user_id="u", issued_before=T + after), now=T)
        self._is_kept_until(rules, T + after + retention)

    def test_that_was_ahead(self) -> None:
        """A received rule with a cutoff in the future is kept from its cutoff on, whatever its expiry."""
        for expiry in ({}, {"expires_at": "2026-03-01T12:00:01Z"}, {"expires_at": "2026-03-09T23:59:59Z"}):
            data = {"user_id": "u", "issued_before": "2026-03-10T00:00:00Z"} | expiry
            rules = rules_of(received(EventType.TOKEN_REVOKED, NOW, **data))
            cutoff = datetime(2026, 3, 10, tzinfo=UTC).timestamp()
            assert rules.revokes({"sub": "u", "iat": cutoff - 1})
            assert not rules.revokes({"sub": "u", "iat": cutoff + 1})
            self._is_kept_until(rules, cutoff + DAY.total_seconds())

    def test_expires_after_its_cutoff(self) -> None:
        """A received rule that expires after its cutoff is kept as long as it says."""
        times = {"issued_before": "2026-03-02T00:00:00Z", "expires_at": "2026-03-02T00:15:00Z"}
        rules = rules_of(received(EventType.TOKEN_REVOKED, NOW, user_id="u", **times))
        self._is_kept_until(rules, datetime(2026, 3, 2, 0, 15, tzinfo=UTC).timestamp())

    def test_a_token_rule_after_the_retention(self) -> None:
        """A rule about a token, which has no cutoff, is kept for the retention from its arrival."""
        self._is_kept_until(rules_of(revoke(token_id="t")), T + DAY.total_seconds())

    def test_long_expired(self) -> None:
        """A rule that had expired on arrival is removed by the next sweep."""
        rules = rules_of(revoke(token_id="t", expires_at=1), revoke(token_id="old", expires_at=T - 10_000))
        assert rules.revokes({"jti": "t"})
        assert sweep(rules, T) == 2

    @pytest.mark.parametrize("years", [6, 1000])
    def test_in_many_years(self, years: int) -> None:
        """A rule that would be kept for longer than five years is kept for ever."""
        rules = rules_of(revoke(token_id="t", expires_at=NOW + timedelta(days=365 * years)))
        assert sweep(rules, T + 4.9 * 365 * 24 * 3600) == 0
        assert rules.revokes({"jti": "t"})

    def test_without_retention(self) -> None:
        """If the transport keeps everything, so do the rules, except those with an expiry."""
        rules = rules_of(revoke(token_id="t"), revoke(token_id="s", expires_at=T), retention=None)
        assert sweep(rules, T + 10**8) == 1
        assert rules.revokes({"jti": "t"})

    def test_key_rules_never_expire(self) -> None:
        """A rule about a key is never removed: an attacker can sign tokens that never expire."""
        rules = rules_of(KeyRotated(key_id="k", compromised=True))
        sweep(rules, T + 10**8)
        assert rules.revokes({"kid": "k"})

    def test_the_later_of_two(self) -> None:
        """Of two rules about the same identifier, the later expiry counts, in either order."""
        early, late = (revoke(user_id="u", expires_at=T + seconds) for seconds in (1_000, 100_000))
        for events in ((early, late), (late, early)):
            self._is_kept_until(rules_of(*events), T + 100_000)

    def test_in_slices(self) -> None:
        """Thousands of rules are removed a slice at a time; rules that arrive in between are kept."""
        rules = rules_of(*(revoke(token_id=f"t{number}", expires_at=T) for number in range(5_000)))
        slices = rules.sweep(now=T + 2 * TICK)
        assert 0 < next(slices) < 5_000
        rules.apply(revoke(token_id="t4999"), now=T)
        rules.apply(revoke(token_id="new"), now=T)
        list(slices)
        assert rules.counts["token"] == 2
        assert rules.revokes({"jti": "t4999"})


class TestOrder:
    """Events arrive in any order, and more than once."""

    _events = st.lists(
        st.builds(
            revoke,
            session_id=st.sampled_from([None, "a", "b"]),
            user_id=st.sampled_from(["a", "b"]),
            client_id=st.sampled_from([None, "a"]),
            issued_before=st.none() | st.integers(T - 1000, T + 1000),
            expires_at=st.none() | st.integers(T, T + 10**6),
        )
        | st.builds(SessionDestroyed, session_id=st.sampled_from(["a", "b"])),
        max_size=12,
    )

    @given(_events, st.randoms(use_true_random=False))
    def test_makes_no_difference(self, events: list[Event], chance: random.Random) -> None:
        """Duplicates and another order lead to the same rules."""
        again = [*events, *(event for event in events if chance.random() < 0.5)]
        chance.shuffle(again)
        assert _packed(rules_of(*again)) == _packed(rules_of(*events))


def _packed(rules: Rules) -> dict[str, set[tuple[int, int, int]]]:
    return {
        kind: {(hash(rule), rule.cutoff, rule.expiry_tick) for rule in rule_set.rules if isinstance(rule, AnyRule)}
        for kind, rule_set in rules._rule_sets.items()
    }


class _Named:
    """An identifier with this hash."""

    def __init__(self, digest: int) -> None:
        self._digest = digest

    def __hash__(self) -> int:
        return self._digest


_hashes = st.integers(-(2**63), 2**63 - 1).filter(lambda digest: digest not in (-1, -1 ^ 2**60))  # -1 is no hash


@pytest.mark.parametrize("cutoff", [EVERY_TOKEN, 1, 0])
@given(
    st.sets(
        st.integers(-(2**63), 2**63 - 1).filter(lambda digest: digest not in (-1, -1 ^ 2**60)), min_size=1, max_size=30
    )
)
@example({0, 1, -2, 2**60, 2**60 - 1, -(2**60), 2**63 - 1, -(2**63)})
def test_every_hash(cutoff: int, digests: set[int]) -> None:
    """A rule is found by the hash of its identifier, added with others or alone, and by no other hash."""
    one_by_one, together = RuleSet(), RuleSet()
    for digest_ in digests:
        one_by_one.merge(digest_, cutoff, 7)
    identifiers = [_Named(digest_) for digest_ in digests]
    together.restore(identifiers, [cutoff] * len(identifiers), [7] * len(identifiers))
    for rule_set in (one_by_one, together):
        assert all(identifier in rule_set.rules for identifier in identifiers)
        found = [rule_set.find(digest_) for digest_ in digests]
        assert [(hash(rule), rule.cutoff, rule.expiry_tick) for rule in found if rule] == [
            (digest_, cutoff, 7) for digest_ in digests
        ]
        assert all((digest_ ^ 2**60 in digests) == (_Named(digest_ ^ 2**60) in rule_set.rules) for digest_ in digests)
        together.restore(identifiers, [cutoff] * len(identifiers), [7] * len(identifiers))
        assert len(rule_set.rules) == len(digests)
        assert sum(rule_set.sweep(7)) == len(digests)
        assert rule_set.rules == set()


def test_unseen_by_the_garbage_collector() -> None:
    """Rules that cover all tokens, as most do, cost nothing when garbage is collected."""
    rule_set = RuleSet()
    rule_set.merge(hash("a"), EVERY_TOKEN, 5)
    rule_set.restore(["b"], [EVERY_TOKEN], [5])
    assert not any(map(gc.is_tracked, rule_set.rules))


def test_merging_leaves_no_gap() -> None:
    """While a rule is replaced by a wider one, a check in another thread finds one of the two."""

    class Watched(set[object]):
        """A set that is checked after each removal, as another thread may do."""

        def discard(self, item: object) -> None:
            """Remove an item, then check."""
            super().discard(item)
            assert "alice" in self

    rule_set = RuleSet()
    rule_set.merge(digest("alice"), 1, 5)
    rule_set.rules = Watched(rule_set.rules)
    for cutoff, expiry_tick in ((2, 5), (2, 6), (1, 7), (3, 1)):
        rule_set.merge(digest("alice"), cutoff, expiry_tick)
        assert len(rule_set.rules) == 1
    rule = rule_set.find(digest("alice"))
    assert rule is not None
    assert (rule.cutoff, rule.expiry_tick) == (3, 7)
    assert sum(rule_set.sweep(6)) == 0
    assert sum(rule_set.sweep(7)) == 1
    assert "alice" not in rule_set.rules
