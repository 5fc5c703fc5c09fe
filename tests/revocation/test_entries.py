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
from jwt_events.revocation._entries import Folding, ForeignEntry, RuleEntry, restore
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, PackedRule
from jwt_events.revocation._rules import GRACE, Rules, rules_of
from jwt_events.transport.base import LedgerEntry

NOW = 1_700_000_000.0
LASTING = timedelta(hours=1)

# Few names and few times, so that events are often about the same.
_names = st.sampled_from(["a", "b", "a,b", "ä", "t", "sha256:" + "0" * 64, "long" * 50])
_times = st.integers(-10_000, 10_000).map(lambda seconds: datetime.fromtimestamp(NOW + seconds / 2, UTC))
_past = st.integers(-10_000_000, -1).map(lambda ms: datetime.fromtimestamp(NOW + ms / 1000, UTC))


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
    kind = draw(st.sampled_from(["revoked", "revoked", "revoked", "destroyed", "rotated", "other"]))
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
        if isinstance(rule, PackedRule)
    }


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
    rotations = [entry for entry in FOLD.entries(found, now=NOW) if entry.until == math.inf]
    assert {entry for entry in parts if entry.until == math.inf} == set(rotations)


@given(st.lists(events(), max_size=10))
def test_from_bytes(found: list[Event]) -> None:
    """Encoded events come to the same as events; what is not an event is passed over."""
    wire = [encode_event(event, source="tests") for event in found if type(event) is not KeyRotated]
    plain = [event for event in found if type(event) is not KeyRotated]
    assert FOLD([b"", *wire, b"{}"], NOW) == FOLD.entries(plain, now=NOW)


_KINDS: st.SearchStrategy[RuleKind] = st.sampled_from(["token", "session", "user_at_client", "user", "client"])


@st.composite
def rule_entries(draw: st.DrawFn) -> RuleEntry:
    """Draw any rule, narrowed or not."""
    kind: RuleKind = draw(_KINDS)
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
    names = tuple(draw(text) for _ in range(1 + (kind == "user_at_client")))
    cutoff = EVERY_TOKEN if kind == "token" else draw(st.integers(0, EVERY_TOKEN))
    return RuleEntry(kind, names, cutoff, draw(st.binary(max_size=20)))


@given(rule_entries())
def test_there_and_back(entry: RuleEntry) -> None:
    """A rule is read as it was written, whatever its identifiers are and whatever narrows it."""
    assert RuleEntry.parse(entry.encode()) == entry
    assert entry.encode()[0] != 0


@given(st.binary(max_size=30))
def test_anything(content: bytes) -> None:
    """Other bytes are refused, or are exactly what this library writes for the rule that is read from them."""
    try:
        entry = RuleEntry.parse(content)
    except ForeignEntry:
        return
    assert entry.encode() == content


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
    ],
    ids=repr,
)
def test_foreign(content: bytes) -> None:
    """An entry that is no rule of this version refuses the batch, of which nothing is put in force."""
    rules = fresh()
    with pytest.raises(ForeignEntry, match="ledger"):
        restore(rules, [(b"tgood", NOW + 5), (content, NOW + 5)])
    assert not sum(rules.counts.values())


def test_what_is_over() -> None:
    """A rule that is over for more than ten minutes is not folded, so a stream of short tokens leaves nothing."""
    over = TokenRevoked(token_id="a", expires_at=datetime.fromtimestamp(NOW - 601, UTC))
    recent = TokenRevoked(token_id="b", expires_at=datetime.fromtimestamp(NOW - 599, UTC))
    assert [entry.content for entry in FOLD.entries([over, recent], now=NOW)] == [b"tb"]


def test_for_ever() -> None:
    """Without a time for rules that do not say when they expire, they are needed for ever; so are rotations."""
    found = Folding(None).entries([TokenRevoked(user_id="a"), KeyRotated(key_id="k", compromised=True)], now=NOW)
    assert [entry.until for entry in found] == [math.inf, math.inf]
    rules = fresh()
    put(rules, found)
    assert rules.counts["user"] == rules.counts["key"] == 1
    assert not list(rules.sweep(now=NOW + 10**8))


def test_restored_over_others() -> None:
    """Rules that are in force already are neither lowered nor doubled."""
    rules = fresh()
    rules.apply(SessionDestroyed(session_id="s", occurred_at=datetime.fromtimestamp(NOW, UTC)), now=NOW)
    before = state(rules)
    put(rules, [LedgerEntry(RuleEntry("session", ("s",), 5).encode(), NOW)])
    assert state(rules) == before
    put(rules, [LedgerEntry(RuleEntry("session", ("s",), EVERY_TOKEN).encode(), math.inf)])
    assert list(state(rules).values()) == [(EVERY_TOKEN, NEVER)]
