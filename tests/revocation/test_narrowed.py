"""Rules with an exemption or with conditions, about claims and about everyone: against a list of all events."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import EventType, InvalidClaims, MemoryTransport, RevocationList, RevokedTokenError, TokenRevoked
from jwt_events.events import receive_event
from jwt_events.revocation._narrowed import NarrowedRule
from jwt_events.revocation._rules import Rules
from tests.support.examples import received
from tests.support.work import lines_run

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
T = int(NOW.timestamp())
HOUR = timedelta(hours=1)


class OddText(str):
    """Text that equals nothing, itself included."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def rules_of(*events: TokenRevoked, retention: timedelta | None = HOUR) -> Rules:
    """Return the rules of these events."""
    rules = Rules(epoch=T, retention=retention)
    for event in events:
        rules.apply(event, now=T)
    return rules


def revoked(*, at: datetime = NOW, **fields: Any) -> TokenRevoked:
    """Return an event that happened then."""
    return TokenRevoked(occurred_at=at, **fields)


class TestEverywhereElse:
    """A rule about a user that spares a session."""

    @pytest.mark.parametrize(
        ("claims", "is_revoked"),
        [
            ({"sub": "u", "sid": "mine", "iat": T}, False),
            ({"sub": "u", "sid": "mine"}, False),
            ({"sub": "u", "sid": "other", "iat": T}, True),
            ({"sub": "u", "sid": "", "iat": T}, True),
            ({"sub": "u", "iat": T}, True),
            ({"sub": "u", "sid": "other", "iat": T + 1}, False),
            ({"sub": "v", "sid": "other", "iat": T}, False),
        ],
    )
    def test_one(self, claims: dict[str, object], is_revoked: bool) -> None:
        """Tokens of the session live, and those that are issued later; a token without session does not."""
        assert rules_of(revoked(user_id="u", except_session_id="mine")).revokes(claims) is is_revoked

    def test_at_a_client(self) -> None:
        """With a client, only its tokens are covered, but those of the session."""
        rules = rules_of(revoked(user_id="u", client_id="c", except_session_id="mine"))
        assert rules.revokes({"sub": "u", "azp": "c", "sid": "other", "iat": T})
        assert not rules.revokes({"sub": "u", "azp": "c", "sid": "mine", "iat": T})
        assert not rules.revokes({"sub": "u", "azp": "d", "sid": "other", "iat": T})

    def test_a_name_that_is_too_long(self) -> None:
        """A session whose name cannot be published is spared by its alias."""
        claims = {"sub": "u", "sid": "s" * 600, "iat": T}
        event = TokenRevoked.from_claims(claims, everywhere_else=True)
        assert not rules_of(event).revokes(claims)
        assert rules_of(event).revokes({**claims, "sid": "s" * 601})

    def test_no_growth(self) -> None:
        """A user revoked a hundred times, with the same exemption or with many, is one rule in one entry."""
        for names in (["mine"] * 100, [f"s{number}" for number in range(100)]):
            rules = rules_of(*(revoked(user_id="u", except_session_id=name) for name in names))
            assert rules.counts["user"] == 1
            assert len(rules._narrowed) == 1

    @pytest.mark.parametrize("fields", [{"client_id": "c"}, {"token_id": "t"}, {"session_id": "s"}], ids=str)
    def test_without_a_user_from_elsewhere(self, fields: dict[str, str]) -> None:
        """An exemption that makes no sense spares nothing: it is ignored when it is received."""
        event = received(EventType.TOKEN_REVOKED, NOW, except_session_id="s", **fields)
        assert rules_of(event).revokes({"azp": "c", "jti": "t", "sid": "s", "iat": T})  # type: ignore[arg-type]  # it is one

    @given(
        st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, "a", "b", "c"])), max_size=8),
        st.randoms(use_true_random=False),
    )
    def test_merging_is_exact(self, made: list[tuple[int, int, str | None]], chance: Any) -> None:
        """In any order and with duplicates, merged rules cover what the rules cover one by one, for as long."""
        rule = NarrowedRule()
        for one in chance.sample(made * 2, 2 * len(made)):
            rule = rule.merged(*one)
        for session in (None, "a", "b", "c", "d"):
            for tick in range(7):
                spared = [one for one in made if one[2] is None or one[2] != session]
                needed = max((cutoff for cutoff, expiry, _ in spared if expiry > tick), default=0)
                left = rule.at(tick)
                covered = 0 if left is None else left.cutoff_for(session)
                assert needed <= covered <= max((cutoff for cutoff, *_ in spared), default=0)


class TestConditions:
    """Rules about any claims, alone or beside an identifier."""

    @pytest.mark.parametrize(
        ("condition", "claims", "meets"),
        [
            ({"org": "acme"}, {"org": "acme"}, True),
            ({"org": "acme"}, {"org": "other"}, False),
            ({"org": "acme"}, {}, False),
            ({"org": "acme"}, {"org": ["other", "acme"]}, True),
            ({"org": "acme"}, {"org": ["other", "acme", {}]}, True),
            ({"org": "acme"}, {"org": [[], None, "acme"]}, True),
            ({"org": "acme"}, {"org": ["other", OddText("acme")]}, True),
            ({"org": "acme"}, {"org": OddText("acme")}, True),
            ({"org": "acme"}, {"org": ["other", "another"]}, False),
            ({"org": "acme"}, {"org": []}, False),
            ({"org": "acme"}, {"org": ("acme",)}, True),
            ({"org": "acme"}, {"org": {"acme": "acme"}}, False),
            ({"org": "acme"}, {"org": [["acme"]]}, False),
            ({"org": "acme"}, {"org": None}, False),
            ({"act.sub": "root"}, {"act": {"sub": "root"}}, True),
            ({"act.sub": "root"}, {"act": {"sub": ["x", "root"]}}, True),
            ({"act.sub": "root"}, {"act": [{"sub": "x"}, {"sub": "root"}]}, True),
            ({"act.sub": "root"}, {"act.sub": "root"}, True),
            ({"act.sub": "root"}, {"act.sub": "x", "act": {"sub": "root"}}, True),
            ({"act.sub": "root"}, {"act.sub": ["root"], "act": {"sub": "x"}}, True),
            ({"act.sub": "root"}, {"act.sub": "x", "act": {"sub": "y"}}, False),
            ({"act.sub": "root"}, {"act": "root"}, False),
            ({"act.sub": "root"}, {"act": ["root"]}, False),
            ({"act.sub": "root"}, {"act": {"sub": {"root": "root"}}}, False),
            ({"act.sub": "root"}, {"act": {"sub": "x"}, "sub": "root"}, False),
            ({"a.b.c": 1}, {"a": {"b": {"c": 1}}}, True),
            ({"https://a.shop.example.com/org": "acme"}, {"https://a.shop.example.com/org": "acme"}, True),
            ({"n": 1}, {"n": 1.0}, True),
            ({"n": 1}, {"n": True}, False),
            ({"n": True}, {"n": True}, True),
            ({"n": True}, {"n": 1}, False),
            ({"n": "1"}, {"n": 1}, False),
            ({"n": False}, {"n": [0, False]}, True),
            ({"org": "acme", "plan": "free"}, {"org": "acme", "plan": "free"}, True),
            ({"org": "acme", "plan": "free"}, {"org": "acme"}, False),
        ],
    )
    def test_alone(self, condition: dict[str, Any], claims: dict[str, object], meets: bool) -> None:
        """A claim equals the value, or its list contains it; a dot leads into an object."""
        rules = rules_of(revoked(claims=condition))
        assert rules.revokes({**claims, "iat": T}) is meets
        assert not rules.revokes({**claims, "iat": T + 1})
        assert rules.revokes(claims) is meets

    @pytest.mark.parametrize(
        ("fields", "claims"),
        [
            ({"token_id": "x"}, {"jti": "x"}),
            ({"session_id": "x"}, {"sid": "x"}),
            ({"user_id": "x"}, {"sub": "x"}),
            ({"user_id": "x", "client_id": "c"}, {"sub": "x", "azp": "c"}),
            ({"client_id": "x"}, {"client_id": "x"}),
        ],
        ids="+".join,
    )
    def test_beside_an_identifier(self, fields: dict[str, Any], claims: dict[str, object]) -> None:
        """Both must be so: two issuers may give the same identifiers."""
        rules = rules_of(revoked(**fields, claims={"iss": "one"}))
        assert rules.revokes({**claims, "iss": "one", "iat": T})
        assert not rules.revokes({**claims, "iss": "two", "iat": T})
        assert not rules.revokes({**claims, "iat": T})
        assert not rules.revokes({"iss": "one", "iat": T})

    def test_many_about_one_identifier(self) -> None:
        """A thousand conditions beside one client are found by their values."""
        rules = rules_of(*(revoked(client_id="c", claims={"iss": "i", "org": f"o{n}"}) for n in range(1_000)))
        for org, is_revoked in (("o0", True), ("o999", True), ("o1000", False)):
            assert rules.revokes({"client_id": "c", "iss": "i", "org": org, "iat": T}) is is_revoked
            assert not rules.revokes({"client_id": "d", "iss": "i", "org": org, "iat": T})

    def test_everyone(self) -> None:
        """A rule about everyone covers every token issued up to then, even one that names nothing."""
        rules = rules_of(revoked(everyone=True))
        for claims in ({}, {"sub": "u"}, {"jti": "t", "sub": "u", "sid": "s"}):
            assert rules.revokes({**claims, "iat": T})
            assert rules.revokes(claims)
            assert not rules.revokes({**claims, "iat": T + 1})

    def test_everyone_from_elsewhere(self) -> None:
        """Received beside an identifier, everyone counts: no token is trusted that may be revoked."""
        event = received(EventType.TOKEN_REVOKED, NOW, everyone=True, user_id="u")
        assert rules_of(event).revokes({"sub": "v", "iat": T})  # type: ignore[arg-type]  # it is one

    def test_forgotten(self) -> None:
        """Rules are removed as others are, and leave nothing behind."""
        events = (
            revoked(user_id="u", except_session_id="s"),
            revoked(user_id="u", claims={"iss": "i"}),
            *(revoked(client_id="c", claims={"org": f"o{n}"}) for n in range(20)),
            revoked(claims={"org": "acme"}),
            revoked(everyone=True),
        )
        rules = rules_of(*events)
        assert sum(rules.counts.values()) == 4
        assert list(rules.sweep(now=T + 3_600)) == []
        assert sum(rules.sweep(now=T + 3_600 + 1_300)) == len(events) + 2  # the sets contain both identifiers, too
        narrowed = rules._narrowed
        assert set(rules.counts.values()) == {0}
        assert (len(narrowed), narrowed.names, narrowed.everyone_until) == (0, (), 0)
        assert (narrowed._by_identifier, narrowed._by_value, narrowed._by_expiry, rules._is_odd) == ({}, {}, {}, False)

    def test_memory(self) -> None:
        """A rule without conditions costs what it did: at most 110 bytes."""
        count = 12_500  # fills the tables of a dictionary as far as 100,000 do
        events = [TokenRevoked.model_construct(token_id=f"t{number}", occurred_at=NOW) for number in range(count)]
        tracemalloc.start()
        try:
            rules = Rules(epoch=T, retention=None)
            before = tracemalloc.get_traced_memory()[0]
            for event in events:
                rules.apply(event, now=T)
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert used / count <= 110

    @pytest.mark.parametrize("org", ["o", ["o", "another"]], ids=["text", "list"])
    def test_cost(self, org: object) -> None:
        """Beside rules about three names, a check looks at these three names, however many rules there are."""
        names = ("org", "plan", "iss")
        claims = {"jti": "t", "sub": "u", "sid": "s", "azp": "c", "iat": T + 1, "org": org, "plan": "p", "iss": "i"}

        def lines(count: int) -> int:
            rules = rules_of(*(revoked(claims={names[n % 3]: f"v{n}"}) for n in range(count)))
            return lines_run(lambda: rules.revokes(claims))

        assert lines(0) < lines(3) == lines(300)


_SCALARS = st.sampled_from(["a", "b", 1, 1.0, True, 0, False])
_CONDITIONS = st.dictionaries(st.sampled_from(["org", "act.sub", "x.y.z"]), _SCALARS, min_size=1, max_size=3)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=2) | st.none()
_EVENTS = st.fixed_dictionaries(
    {"at": st.integers(-2, 2)},
    optional={
        "token_id": st.sampled_from(["a", "b"]),
        "session_id": st.sampled_from(["a", "b"]),
        "user_id": st.sampled_from(["a", "b"]),
        "client_id": st.sampled_from(["a", "b"]),
        "except_session_id": st.sampled_from(["a", "b"]),
        "claims": _CONDITIONS,
        "everyone": st.just(True),
    },
)
_TOKENS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("jti", "sid", "sub", "client_id", "azp"), st.sampled_from(["a", "b"])),
        "iat": st.integers(T - 3, T + 3),
        "org": _VALUES,
        "act": st.fixed_dictionaries({"sub": _VALUES}) | _VALUES,
        "x": st.fixed_dictionaries({"y": st.fixed_dictionaries({"z": _VALUES}) | _VALUES}),
        **dict.fromkeys(("act.sub", "x.y.z"), _VALUES),
    },
)


def _same(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _meets(claims: Mapping[str, Any], name: str, wanted: object) -> bool:
    followed: Any = claims
    for part in name.split("."):
        followed = followed.get(part) if isinstance(followed, dict) else None
    found = [value if isinstance(value, list) else [value] for value in (followed, claims.get(name))]
    return any(_same(one, wanted) for values in found for one in values)


def covers(event: TokenRevoked, claims: Mapping[str, Any]) -> bool:
    """Return whether an event revokes a token, read off the documentation."""
    until = event.issued_before or event.occurred_at
    in_time = "iat" not in claims or claims["iat"] <= until.timestamp()
    if event.everyone:
        return in_time
    if not all(_meets(claims, name, wanted) for name, wanted in (event.claims or {}).items()):
        return False
    if event.token_id is not None or event.session_id is not None:
        by_token = claims.get("jti") == event.token_id
        return by_token if event.token_id is not None else claims.get("sid") == event.session_id and in_time
    if event.client_id is not None and event.client_id not in (claims.get("client_id"), claims.get("azp")):
        return False
    if event.user_id is None:
        return in_time
    spared = event.except_session_id is not None and claims.get("sid") == event.except_session_id
    return claims.get("sub") == event.user_id and not spared and in_time


@given(st.lists(_EVENTS, max_size=12), st.lists(_TOKENS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_equals_the_list_of_all_events(
    made: Sequence[dict[str, Any]], tokens: list[dict[str, Any]], chance: Any
) -> None:
    """In any order and with duplicates, exactly those tokens are revoked that some event revokes."""
    events = []
    for fields in made:
        at = NOW + timedelta(seconds=fields.pop("at"))
        if fields:
            if set(fields) == {"except_session_id"}:
                fields["user_id"] = "a"
            events.append(receive_event(TokenRevoked, {**fields, "occurred_at": at}))
    rules = rules_of(*chance.sample(events * 2, 2 * len(events)))
    for claims in tokens:
        expected = any(covers(event, claims) for event in events)  # type: ignore[arg-type]  # the same
        assert rules.revokes(claims) is expected, (claims, events)


class TestWatches:
    """Watched tokens are told of such rules."""

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            ({"user_id": "u", "except_session_id": "other"}, "user"),
            ({"claims": {"org": "acme"}}, "claims"),
            ({"user_id": "u", "claims": {"org": "acme"}}, "user"),
            ({"everyone": True}, "everyone"),
        ],
        ids=str,
    )
    async def test_ended(self, fields: dict[str, Any], kind: str) -> None:
        """The watched token that is covered ends, the one that is not goes on."""
        claims = {"sub": "u", "sid": "mine", "org": "acme", "iat": 5}
        later = int(datetime.now(UTC).timestamp()) + 1_000
        async with RevocationList(MemoryTransport()) as revocations:
            async with (
                revocations.watch(claims) as covered,
                revocations.watch({**claims, "iat": later}) as not_covered,
                revocations.watch({"iat": later}) as nameless,
            ):
                revocations.apply(TokenRevoked(**fields))
                told = [watch.revoked.is_set() for watch in (covered, not_covered, nameless)]
                assert told == [True, False, False]
            about = kind if kind == "everyone" else f"its {kind}"
            with pytest.raises(RevokedTokenError, match=f"about {about} up to") as refusal:
                revocations.ensure_live(claims)
        assert refusal.value.rule == kind

    async def test_spared(self) -> None:
        """The session that is spared goes on."""
        claims = {"sub": "u", "sid": "mine", "iat": 5}
        async with RevocationList(MemoryTransport()) as revocations, revocations.watch(claims) as watch:
            revocations.apply(TokenRevoked.from_claims(claims, everywhere_else=True))
            assert not watch.revoked.is_set()


class TestFromClaims:
    """``everywhere_else`` needs a user and a session."""

    def test_fields(self) -> None:
        """The event names the user and the session, and nothing narrower, whatever else the claims say."""
        event = TokenRevoked.from_claims(
            {"jti": "t", "sub": "u", "sid": "s", "azp": "c", "exp": T}, reason="new password", everywhere_else=True
        )
        assert (event.user_id, event.except_session_id, event.reason) == ("u", "s", "new password")
        assert (event.token_id, event.session_id, event.client_id, event.expires_at) == (None, None, None, None)

    @pytest.mark.parametrize(
        ("claims", "missing"),
        [({"sub": "u"}, "sid"), ({"sid": "s"}, "sub"), ({"sub": "u", "sid": ""}, "sid"), ({}, "sub")],
    )
    def test_missing(self, claims: dict[str, object], missing: str) -> None:
        """Without one of them nothing can be spared, and nothing is revoked by mistake."""
        with pytest.raises(InvalidClaims) as error:
            TokenRevoked.from_claims(claims, everywhere_else=True)
        assert error.value.claim == missing

    @pytest.mark.parametrize("extra", [{"typ": "logout+jwt"}, {"events": {"urn:x": {}}}], ids=str)
    def test_a_session_that_ended(self, extra: dict[str, object]) -> None:
        """A logout token names a session to end, not one to keep."""
        with pytest.raises(InvalidClaims, match="no session to keep"):
            TokenRevoked.from_claims({"sub": "u", "sid": "s", **extra}, everywhere_else=True)
