"""Rules read from many messages at once are those that their events put in force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from jwt_events import DecodeError, Event, MemoryTransport, RevocationList, SessionDestroyed, TokenRevoked, Verdict
from jwt_events.envelope import Envelope, decode, encode, encode_event, read_revocation
from jwt_events.metrics import Metrics
from jwt_events.revocation._entries import Folding
from jwt_events.revocation._reading import RulesRead
from jwt_events.revocation._rules import Rules
from jwt_events.transport.base import Delivery
from tests.support.examples import COMPACT_JWT, EVENTS, LATER, NOON
from tests.support.mutations import ORIGINALS, mutated
from tests.support.strategies import known_events

_NOW = NOON.timestamp()
_IP, _N = b'"metadata":{"ip":"192.0.2.1"},', b'"metadata":{"n":1},'  # of the originals


def _rules(retention: timedelta | None = None) -> Rules:
    return Rules(epoch=_NOW, retention=retention)


def _contents(rules: Rules) -> object:
    """Return what is in force, and when each part of it ends."""
    sets = {kind: sorted(map(repr, rule_set.rules)) for kind, rule_set in rules._rule_sets.items()}
    ends = {
        (kind, tick, repr(rule))
        for kind, rule_set in rules._rule_sets.items()
        for tick, some in rule_set._by_expiry.items()
        for rule in some
        if rule_set.find(hash(rule)) is rule
    }
    narrowed = rules._narrowed
    places = (narrowed._by_identifier, narrowed._by_value, narrowed.everyone_until)
    return sets, ends, *places, rules._has_aliases, rules._is_odd


def _depends_on_the_clock(payload: bytes) -> bool:
    """Return whether an event says nowhere when it occurred, which is when it is read then."""
    try:
        return "occurred_at" not in decode(payload).event.model_fields_set
    except DecodeError:
        return False


def _applied(rules: Rules, payloads: Sequence[bytes]) -> Rules:
    for payload in payloads:
        with suppress(DecodeError):
            rules.apply(decode(payload).event, now=_NOW)
    return rules


def _read(rules: Rules, payloads: Sequence[bytes]) -> tuple[Rules, int]:
    read = RulesRead([Delivery(payload) for payload in payloads])
    read.put_in_force(rules, now=_NOW)
    assert sum(read.counts.values()) + len(read.left) == len(payloads)
    return _applied(rules, [delivery.payload for delivery in read.left]), len(payloads) - len(read.left)


@given(st.lists(known_events, max_size=30), st.sampled_from([None, timedelta(hours=1)]))
def test_the_same_rules(events: list[Event], retention: timedelta | None) -> None:
    """Of any events, in any order, several about one identifier included."""
    payloads = [encode(Envelope(event), source="auth") for event in events]
    expected = _applied(_rules(retention), payloads)
    assert _contents(_read(_rules(retention), payloads)[0]) == _contents(expected)


def test_the_same_rules_of_mutated_messages() -> None:
    """Of damaged messages, by the hundred; those that are no event put nothing in force."""
    plain = (payload.replace(_IP, b"").replace(_N, b"") for payload in mutated(4_000, seed=2))
    payloads, covered = [payload for payload in plain if not _depends_on_the_clock(payload)], 0
    for start in range(0, len(payloads), 100):
        some = payloads[start : start + 100]
        found, count = _read(_rules(), some)
        assert _contents(found) == _contents(_applied(_rules(), some))
        covered += count
    assert covered > 100


@pytest.mark.parametrize("event", ORIGINALS, ids=lambda event: f"{type(event).__name__}-{event.subject}")
def test_each_alone(event: Event) -> None:
    """Each kind of event, without and with what only its event can say."""
    for changed in (event, event.model_copy(update={"metadata": {}})):
        payload = encode(Envelope(changed), source="auth")
        assert _contents(_read(_rules(), [payload])[0]) == _contents(_applied(_rules(), [payload]))


@pytest.mark.parametrize(
    "changes",
    [
        {"token_id": COMPACT_JWT},
        {"token_id": "a.b.c"},
        {"token_id": " "},
        {"token_id": "t" * 513},
        {"reason": COMPACT_JWT},
        {"id": " "},
        {"id": COMPACT_JWT},
        {"source": COMPACT_JWT},
        {"source": "\t"},
    ],
    ids=str,
)
def test_what_the_class_refuses_is_left(changes: dict[str, str]) -> None:
    """A message that is refused as an event is not read either."""
    event = TokenRevoked(token_id="t", occurred_at=NOON, expires_at=LATER).model_copy(update=changes)
    assert read_revocation(encode_event(event, source="auth")) is None


def test_what_is_left() -> None:
    """What holds metadata or conditions, waits for confirmation, is about a key or about everyone."""
    events = [
        *EVENTS,
        TokenRevoked(everyone=True, occurred_at=NOON),
        TokenRevoked(claims={"tenant": "a"}, occurred_at=NOON),
    ]
    payloads = [encode(Envelope(event), source="auth") for event in events]
    payloads.append(encode(Envelope(TokenRevoked(token_id="t"), confirm=True), source="auth"))
    assert [read_revocation(payload) for payload in payloads] == [None] * len(payloads)


@given(st.lists(known_events, max_size=30))
def test_the_same_entries(events: list[Event]) -> None:
    """Entries of a ledger are folded from messages as from their events."""
    payloads = [encode_event(event, source="auth") for event in events]
    received = [decode(payload).event for payload in payloads]
    folding = Folding()
    assert set(folding(payloads, _NOW)) == set(folding.entries(received, now=_NOW))


async def test_a_list_counts_and_tells() -> None:
    """A list that starts counts what it reads, in its metrics too; a handler gets the events all the same."""
    events: list[Event] = [TokenRevoked(token_id=f"t{number}") for number in range(50)]
    events += [SessionDestroyed(session_id=f"s{number}") for number in range(50)]
    transport = MemoryTransport(retention=timedelta(hours=1))
    transport.append([encode(Envelope(event), source="tests") for event in events])
    registry = CollectorRegistry()
    async with RevocationList(transport, metrics=Metrics(registry)) as live:
        assert live.stats.events == 100
        assert (live.stats.rules["token"], live.stats.rules["session"]) == (50, 50)
        assert live.check({"jti": "t49"}) is live.check({"sid": "s0", "iat": 1}) is Verdict.REVOKED
    labels = {"type": "session_destroyed", "transport": "memory"}
    assert registry.get_sample_value("jwt_events_received_total", labels) == 50
    listening, told = RevocationList(transport), []
    all_told = asyncio.Event()

    @listening.on(TokenRevoked)
    async def note(event: TokenRevoked) -> None:
        told.append(event)
        if len(told) == 50:
            all_told.set()

    async with listening:
        await all_told.wait()
    assert {event.id for event in told} == {event.id for event in events[:50]}
