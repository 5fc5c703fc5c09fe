"""Events as entries of a ledger, and entries as rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import Event, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.envelope import encode_event
from jwt_events.revocation._claims import RuleKind
from jwt_events.revocation._entries import Folding, ForeignEntry, count_kinds, entry_of, restore, rule_of
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, AnyRule
from jwt_events.revocation._reading import RulesRead
from jwt_events.revocation._rule import GRACE, Rule, rule_about, rules_of
from jwt_events.revocation._rules import Rules
from jwt_events.transport.base import Delivery
from jwt_events.transport.optional import ENDLESS, LedgerBatch, LedgerEntry
from tests.support.work import lines_run

NOW = 1_700_000_000.0
LASTING = timedelta(hours=1)

# Few names and few times, so that events are often about the same.
_names = st.sampled_from(["a", "b", "a,b", "ä", "t", "sha256:" + "0" * 64, "long" * 50])
_times = st.integers(-10_000, 10_000).map(lambda seconds: datetime.fromtimestamp(NOW + seconds / 2, UTC))
_past = st.integers(-10_000_000, -1).map(lambda ms: datetime.fromtimestamp(NOW + ms / 1000, UTC))


_conditions = st.dictionaries(
    st.sampled_from(["iss", "acr"]), st.sampled_from(["a", 1, 1.5, True, False]), min_size=1, max_size=2
)


def _narrowed(draw: st.DrawFn) -> Event:
    narrowing = draw(st.sampled_from(["everyone", "claims", "conditions", "exemption", "both"]))
    fields: dict[str, object] = {"occurred_at": draw(_past), "expires_at": draw(st.none() | _times)}
    if narrowing == "everyone":
        fields["everyone"] = True
    if narrowing in ("claims", "conditions", "both"):
        fields["claims"] = draw(_conditions)
    if narrowing == "conditions":
        fields[draw(st.sampled_from(["token_id", "session_id", "user_id", "client_id"]))] = draw(_names)
    if narrowing in ("exemption", "both"):
        fields |= {"user_id": draw(_names), "except_session_id": draw(st.sampled_from(["s1", "s2"]))}
        fields |= draw(st.sampled_from([{}, {"client_id": "c"}]))
    return TokenRevoked(**fields)  # type: ignore[arg-type]  # drawn as they are declared


def _revoked(draw: st.DrawFn) -> Event:
    given_names = {
        name: draw(_names)
        for name in draw(st.sets(st.sampled_from(["token_id", "session_id", "user_id", "client_id"]), min_size=1))
    }
    return TokenRevoked.model_construct(
        **TokenRevoked(token_id="x").__dict__
        | {"token_id": None, "occurred_at": draw(_past), "expires_at": draw(st.none() | _times)}
        | {"issued_before": draw(st.none() | _times)}
        | given_names
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Draw an event of any kind."""
    kind = draw(st.sampled_from(["revoked", "revoked", "narrowed", "narrowed", "destroyed", "rotated", "other"]))
    if kind == "narrowed":
        return _narrowed(draw)
    if kind == "revoked":
        return _revoked(draw)
    if kind == "destroyed":
        return SessionDestroyed(session_id=draw(_names), occurred_at=draw(_past), expires_at=draw(st.none() | _times))
    if kind == "rotated":
        compromised = draw(st.booleans())
        previous = None if compromised else draw(st.none() | _names.map("old {}".format))
        return KeyRotated(
            key_id=draw(_names),
            occurred_at=draw(_past),
            compromised=compromised,
            previous_key_id=previous,
            retire_at=None if previous is None else draw(st.none() | _times),
        )
    return draw(st.sampled_from([TokenExpired(token_id="a"), SessionCreated(session_id="a", user_id="a")]))


def fresh(leeway: float = 0.0) -> Rules:
    """Return rules that know nothing."""
    return Rules(epoch=NOW, retention=LASTING, leeway=leeway)


def state(rules: Rules) -> dict[tuple[RuleKind, int], tuple[int, int]]:
    """Return all rules: the cutoff and the expiry of each."""
    return {
        (kind, hash(rule)): (rule.cutoff, rule.expiry_tick)
        for kind, rule_set in rules._rule_sets.items()
        for rule in rule_set.rules
        if isinstance(rule, AnyRule)
    }


def narrowed(rules: Rules) -> dict[object, object]:
    """Return the cutoffs of all narrowed rules."""
    found = rules._narrowed
    return {
        scope: (rule.cutoff, rule.spared_session, rule.sparing_cutoff)
        for scope in found._places
        for rule in [found._bucket(scope)[scope]]
    }


TOKENS = [
    {
        "jti": jti,
        "sub": sub,
        "sid": sid,
        "client_id": client,
        "iat": iat,
        "iss": issuer,
        "acr": acr,
        "act": {"sub": acr},
    }
    for jti, sub, sid, client in [("a", "b", "s1", "c"), ("b", "a", "s2", "d"), ("x", "a", "t", "c")]
    for issuer, acr in [("a", 1), ("b", True)]
    for iat in [int(NOW) - 9_000, int(NOW) - 100, int(NOW) + 6_000]
]


def put(rules: Rules, entries: Sequence[LedgerEntry]) -> None:
    """Put entries in force, as a list does."""
    for event in restore(
        rules, [(content, until if until == math.inf else math.ceil(until)) for content, until in entries]
    ):
        rules.apply(event, now=NOW)


FOLD = Folding(LASTING.total_seconds())


@given(st.lists(events(), max_size=20), st.randoms(use_true_random=False), st.sampled_from([0.0, 30.0]))
def test_the_same_rules(found: list[Event], random: object, leeway: float) -> None:
    """Folded and restored, events that are not over put the same rules in force as when they are applied."""
    applied, restored = fresh(leeway), fresh(leeway)
    for event in found:
        if any(rule.ends_at(now=NOW, lasting=LASTING.total_seconds()) + GRACE > NOW for rule in rules_of(event)):
            applied.apply(event, now=NOW)
    put(restored, FOLD.entries(found, now=NOW))
    expected, actual = state(applied), state(restored)
    assert actual.keys() == expected.keys()
    for subject, (cutoff, tick) in expected.items():
        assert actual[subject][0] == cutoff
        assert tick <= actual[subject][1] <= min(NEVER, tick + 1)  # times are stored in whole seconds, rounded up
    assert restored._has_aliases >= applied._has_aliases
    assert restored._is_odd >= applied._is_odd
    assert narrowed(restored) == narrowed(applied)
    assert all(restored.revokes(claims) is applied.revokes(claims) for claims in TOKENS)


def merged(entries: Sequence[LedgerEntry]) -> dict[tuple[RuleKind, int], tuple[int, int]]:
    """Return the rules of entries, as the server merges them: of the same content the latest time counts."""
    until: dict[bytes, float] = {}
    for content, instant in entries:
        until[content] = max(until.get(content, 0.0), instant)
    rules = fresh()
    put(rules, [LedgerEntry(*entry) for entry in until.items()])
    return state(rules)


@given(st.lists(events(), max_size=20), st.data())
def test_in_any_order(found: list[Event], data: st.DataObject) -> None:
    """In any order, in any parts, and more than once: folding comes to the same."""
    shuffled = data.draw(st.permutations(found + found[:3]))
    cut = data.draw(st.integers(0, len(shuffled)))
    parts = [*FOLD.entries(shuffled[:cut], now=NOW), *FOLD.entries(shuffled[cut:], now=NOW)]
    assert merged(parts) == merged(FOLD.entries(found, now=NOW))
    rotations = {entry for entry in FOLD.entries(found, now=NOW) if entry.until == math.inf}
    assert {entry for entry in parts if entry.until == math.inf} == rotations


@given(st.lists(events(), max_size=10))
def test_from_bytes(found: list[Event]) -> None:
    """Encoded events come to the same as events; what is not an event is passed over."""
    wire = [encode_event(event, source="tests") for event in found if type(event) is not KeyRotated]
    plain = [event for event in found if type(event) is not KeyRotated]
    assert sorted(FOLD([b"", *wire, b"{}"], NOW)) == sorted(FOLD.entries(plain, now=NOW))


def test_kinds_are_counted() -> None:
    """Of each kind, with what is no rule among them, and where the name of a token is no text."""
    found = FOLD.entries(
        [TokenRevoked(token_id="a"), TokenRevoked(token_id="b"), TokenRevoked(user_id="u"), KeyRotated(key_id="k")],
        now=NOW,
    )
    assert count_kinds(found) == ({"token": 2, "user": 1, "key": 1}, 0)
    assert count_kinds([*found, LedgerEntry(b"t\xff", NOW), LedgerEntry(b"?", NOW)]) == (
        {"token": 2, "user": 1, "key": 1},
        2,
    )


_KINDS: st.SearchStrategy[RuleKind] = st.sampled_from(
    ["token", "session", "user_at_client", "user", "client", "claims", "everyone"]
)
_COUNTS = {"user_at_client": 2, "claims": 0, "everyone": 0}


@st.composite
def any_rules(draw: st.DrawFn) -> Rule:
    """Draw any rule, narrowed or not."""
    kind: RuleKind = draw(_KINDS)
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
    names = tuple(draw(text) for _ in range(_COUNTS.get(kind, 1)))
    cutoff = EVERY_TOKEN if kind == "token" else draw(st.integers(0, EVERY_TOKEN))
    values = (
        text | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.booleans().map(lambda value: (value,))
    )
    conditions = frozenset(draw(st.dictionaries(text, values, max_size=2)).items())
    return rule_about(kind, names, cutoff)._replace(spared_session=draw(st.none() | text), conditions=conditions)


@given(any_rules(), st.just(math.inf) | st.integers(0, 2**32).map(float))
def test_there_and_back(rule: Rule, until: float) -> None:
    """A rule is read as it was written, whatever its identifiers are and whatever narrows it."""
    entry = entry_of(rule, until)
    assert rule_of(*entry) == (rule, until)
    assert entry.content[0] != 0


@given(st.binary(max_size=30))
def test_anything(content: bytes) -> None:
    """Other bytes are refused, or are exactly what this library writes for the rule that is read from them."""
    for until in (NOW, ENDLESS + 5.0, math.inf):
        try:
            entry = entry_of(*rule_of(content, until))
        except ForeignEntry:
            continue
        assert entry.content == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"t",
        b"t\xff",
        b"x1",
        b"s12345",
        b"s123456",
        b"s\xff\xff\xff\xff\xff\xffa",
        b"b123456\0\1u",
        b"r{}",
        b"Ta",
        b"T\0\1ax",
        b"T\0\1a[null,[1,2]]",
        b'T\0\1a[null,["a",null]]',
        b'T\0\1a[ null,["a",1]]',
        b"T\0\1a[]",
        b"n",
        b"nua",
        b"e12345",
        b"e1234567",
    ],
    ids=repr,
)
def test_foreign(content: bytes) -> None:
    """An entry that is no rule of this version refuses the batch, of which nothing is put in force."""
    rules = fresh()
    with pytest.raises(ForeignEntry, match="ledger"):
        restore(rules, [(b"tgood", NOW + 5), (content, NOW + 5)])
    assert not sum(rules.counts.values())


@pytest.mark.parametrize(
    "names",
    [["a"], ["a", "b"], ["a\nb"], ["a\ntb", "c"], ["\n"], ["t", "tt", "\nt"], ["a\n", "é"], ["é", "ü\nt"], ["a", "a"]],
    ids=repr,
)
def test_names_of_tokens(names: list[str]) -> None:
    """Names that are parsed together are those that were stored, whatever they hold."""
    rules, one_by_one = fresh(), fresh()
    assert restore(rules, [(b"t" + name.encode(), NOW + 5) for name in names]) == []
    for name in names:
        one_by_one.restore_one(rule_about("token", (name,), EVERY_TOKEN), until=NOW + 5)
    assert state(rules) == state(one_by_one)


@pytest.mark.parametrize("until", [0.0, NOW - 10**9, NOW, NOW + 599, NOW + 600.5, NOW + 10**9, ENDLESS, math.inf])
@pytest.mark.parametrize("leeway", [0.0, 0.3])
def test_ticks(until: float, leeway: float) -> None:
    """Rules that are restored together expire as each does alone, and none before its time."""
    alone, together = fresh(leeway), fresh(leeway)
    alone.restore_one(rule_about("token", ("a",), EVERY_TOKEN), until=until)
    together.restore("token", ["a"], [EVERY_TOKEN], [until])
    assert state(alone) == state(together)
    mixed = fresh(leeway)
    mixed.restore("token", ["a", "b", "c"], [EVERY_TOKEN] * 3, [until, NOW + 5, math.inf])
    assert state(alone).items() <= state(mixed).items()
    list(mixed.sweep(now=min(until + 600 + leeway, 10.0**11) - 0.01))
    assert mixed.revokes({"jti": "a", "iat": 1})


def test_cost() -> None:
    """To put a rule of a ledger in force is a fraction of the work that its event is."""
    names = [f"{number:032x}" for number in range(500)]
    ends = [datetime.fromtimestamp(NOW + 20 * number, UTC) for number in range(len(names))]
    events = [TokenRevoked(token_id=name, expires_at=end) for name, end in zip(names, ends, strict=True)]
    deliveries = [Delivery(encode_event(event, source="test")) for event in events]
    entries = LedgerBatch.of(FOLD.entries(events, now=NOW))
    of_entries, of_events = fresh(), fresh()
    assert 4 * lines_run(lambda: restore(of_entries, entries)) < lines_run(
        lambda: RulesRead(deliveries).put_in_force(of_events, now=NOW)
    )
    assert of_entries.counts["token"] == of_events.counts["token"] == len(names)


def test_what_is_over() -> None:
    """A rule that is over for more than ten minutes is not folded, so a stream of short tokens leaves nothing."""
    over = TokenRevoked(token_id="a", expires_at=datetime.fromtimestamp(NOW - 601, UTC))
    recent = TokenRevoked(token_id="b", expires_at=datetime.fromtimestamp(NOW - 599, UTC))
    assert [entry.content for entry in FOLD.entries([over, recent], now=NOW)] == [b"tb"]


def test_for_ever() -> None:
    """Without a time for rules that do not say when they expire, they are needed for ever; so are rotations."""
    found = Folding(None).entries([TokenRevoked(user_id="a"), KeyRotated(key_id="k", compromised=True)], now=NOW)
    assert [entry.until >= ENDLESS for entry in found] == [True, True]
    rules = fresh()
    put(rules, found)
    assert rules.counts["user"] == rules.counts["key"] == 1
    assert not list(rules.sweep(now=NOW + 10**8))


def test_restored_over_others() -> None:
    """Rules that are in force already are neither lowered nor doubled."""
    rules = fresh()
    rules.apply(SessionDestroyed(session_id="s", occurred_at=datetime.fromtimestamp(NOW, UTC)), now=NOW)
    before = state(rules)
    put(rules, [entry_of(rule_about("session", ("s",), 5), NOW)])
    assert state(rules) == before
    put(rules, [entry_of(rule_about("session", ("s",), EVERY_TOKEN), math.inf)])
    assert list(state(rules).values()) == [(EVERY_TOKEN, NEVER)]


def test_one_for_each_user() -> None:
    """Of rules that are needed for ever the server keeps one for each identifier, with the latest cutoff."""
    times = [datetime.fromtimestamp(NOW - age, UTC) for age in (30, 10, 20)]
    kept: dict[bytes, float] = {}
    for time in times:
        for content, until in Folding().entries([TokenRevoked(user_id="u", issued_before=time)], now=NOW):
            kept[content] = max(until, kept.get(content, 0.0))
    ((content, until),) = kept.items()
    assert rule_of(content, until) == (rule_about("user", ("u",), int(NOW - 10) * 1000), math.inf)
