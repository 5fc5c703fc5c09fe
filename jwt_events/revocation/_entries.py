"""What a ledger says about revocations: events as its entries, and entries as rules. Pure: the time is passed in.

An entry that is a rule holds the kind of identifier, the cutoff, and the identifiers as text, since the hash of a text
differs from process to process. One that is needed for ever holds its cutoff in place of its time, so that the server
keeps one for each identifier. An entry about a signing key is its event, complete: rotations are few, and `SigningKeys`
need all that they say. Entries are monotone like the rules: those of the same events in any order, folded at once or
one by one, put the same rules in force; of several about one identifier the maximum counts.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import Final, get_args

from jwt_events.envelope import decode, encode_event, read_revocation
from jwt_events.errors import DecodeError
from jwt_events.events import Event, KeyRotated, TokenRevoked, compared
from jwt_events.revocation._claims import RuleKind
from jwt_events.revocation._narrowed import Conditions
from jwt_events.revocation._packed import EVERY_TOKEN
from jwt_events.revocation._rule import GRACE, Rule, rule_about, rule_from, rules_of
from jwt_events.revocation._rules import Rules
from jwt_events.transport.optional import ENDLESS, LedgerBatch, LedgerEntry

ROTATION: Final = b"r"
"""The first byte of entries that are the event of a rotation."""

_NO_SOURCE = "unknown"

# Calling the class itself costs twice as much, and there is one for every event.
_new_entry = tuple.__new__

_LETTERS: Mapping[RuleKind, bytes] = {
    "token": b"t",
    "session": b"s",
    "user_at_client": b"b",
    "user": b"u",
    "client": b"c",
    "claims": b"a",
    "everyone": b"e",
}
_TOKEN = _LETTERS["token"]
_KINDS: Mapping[int, RuleKind] = {letter[0]: kind for kind, letter in _LETTERS.items()}
_NAMES: Mapping[RuleKind, int] = {"user_at_client": 2, "claims": 0, "everyone": 0}
_NO_END = b"n"
_Rules = dict[tuple[object, ...], tuple[Rule, float]]  # each with the time when nothing that it covers can be alive
_IS_SMALL = 0x20
_PLAIN: tuple[RuleKind, ...] = ("session", "user", "client")
_BULK: tuple[RuleKind, ...] = ("token", *_PLAIN)
_NEXT_TOKEN = "\n" + _TOKEN.decode()
_NO_ENTRIES: Final = LedgerBatch([], [])
_COMPARED = (str, int, float, tuple)
_SIZE_OF_CUTOFF = 6
_SIZE_OF_LENGTH = 2

assert set(_LETTERS) | {"key"} == set(get_args(RuleKind))  # noqa: S101 - a kind that is added needs a letter


class ForeignEntry(ValueError):
    """An entry of a ledger that is no rule of this version."""


def entry_of(rule: Rule, until: float) -> LedgerEntry:
    """Return a rule as an entry: with a small letter where nothing narrows it, else with a capital one.

    Args:
        rule: the rule.
        until: when nothing that it covers can be alive, in seconds since 1970; infinite for never.
    """
    is_endless, is_token = until == math.inf, rule.kind == "token"
    tail, letter = _encode_tail(rule), _LETTERS[rule.kind]
    if rule.kind in _PLAIN and not (is_endless or tail):  # as most rules without a token
        return LedgerEntry(letter + rule.cutoff.to_bytes(_SIZE_OF_CUTOFF, "big") + rule.names[0].encode(), until)
    parts = [letter.upper() if tail else letter]
    if is_endless and not is_token:
        parts.insert(0, _NO_END)
    elif not is_token:
        parts.append(rule.cutoff.to_bytes(_SIZE_OF_CUTOFF, "big"))
    names = [name.encode() for name in rule.names]
    for name in names if tail else names[:-1]:
        parts += len(name).to_bytes(_SIZE_OF_LENGTH, "big"), name
    parts += [tail] if tail else names[-1:]
    end = ENDLESS + (0 if is_token else rule.cutoff) if is_endless else until
    return LedgerEntry(b"".join(parts), end)


def rule_of(content: bytes, until: float) -> tuple[Rule, float]:
    """Return the rule that an entry holds, and when nothing that it covers can be alive; infinite for never.

    Raises:
        ForeignEntry: it is no rule.
    """
    is_endless = content[:1] == _NO_END
    at = 2 if is_endless else 1
    kind = _KINDS.get(content[at - 1] | _IS_SMALL) if len(content) >= at else None
    if kind is None:
        raise ForeignEntry("an entry of the ledger is of no kind that this version knows")
    cutoff = EVERY_TOKEN
    if is_endless:
        cutoff = _endless_cutoff(until)
    elif kind != "token":
        at += _SIZE_OF_CUTOFF
        cutoff = int.from_bytes(content[1:at], "big")
    is_narrowed = content[1 if is_endless else 0] & _IS_SMALL == 0
    count = _NAMES.get(kind, 1)
    names, rest = _split(content, at, count if is_narrowed else count - 1)
    try:
        texts = tuple(name.decode() for name in names)
        if is_narrowed:
            rule = _narrowed(rule_about(kind, texts, cutoff), rest)
        else:
            rule = rule_about(kind, (*texts, rest.decode()) if count else (), cutoff)
    except UnicodeDecodeError:
        raise ForeignEntry("an entry of the ledger is not text") from None
    until = math.inf if until >= ENDLESS else until
    if not all(rule.names) or cutoff > EVERY_TOKEN or entry_of(rule, until).content != content:
        raise ForeignEntry("an entry of the ledger is cut off")
    return rule, until


def _endless_cutoff(until: float) -> int:
    if not ENDLESS <= until <= ENDLESS + EVERY_TOKEN:
        raise ForeignEntry("an entry of the ledger that is needed for ever has no cutoff")
    return int(until) - ENDLESS


def _split(content: bytes, at: int, count: int) -> tuple[list[bytes], bytes]:
    """Return that many names of an entry, each preceded by its length, and what is left of it."""
    names: list[bytes] = []
    for _ in range(count):
        begin = at + _SIZE_OF_LENGTH
        end = begin + int.from_bytes(content[at:begin], "big")
        names.append(content[begin:end])
        at = end
    return names, content[at:]


def _encode_tail(rule: Rule) -> bytes:
    if rule.spared_session is None and not rule.conditions:
        return b""
    conditions = [[name, *value] if isinstance(value, tuple) else [name, value] for name, value in rule.conditions]
    tail = [rule.spared_session, *sorted(conditions, key=json.dumps)]
    return json.dumps(tail, ensure_ascii=False, separators=(",", ":")).encode()


def _narrowed(rule: Rule, tail: bytes) -> Rule:
    try:
        spared, *pairs = json.loads(tail)
        conditions: Conditions = frozenset((name, compared(value)) for name, value in pairs)
    except (ValueError, TypeError):
        raise ForeignEntry("what narrows a rule in the ledger cannot be read") from None
    are_known = all(type(name) is str and type(value) in _COMPARED for name, value in conditions)
    if not (spared is None or (type(spared) is str and spared)) or not are_known:
        raise ForeignEntry("a rule in the ledger is narrowed in a way that this version does not know")
    return rule._replace(spared_session=spared, conditions=conditions)


class Folding:
    """Says what is still in force of events that are removed from a stream. Holds no state.

    Args:
        lasting: for how many seconds rules are needed whose events do not say when they expire; ``None`` for ever.
    """

    def __init__(self, lasting: float | None = None) -> None:
        self._lasting = lasting

    def __call__(self, payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
        """Return the entries of encoded events; bytes that are not an event revoke nothing.

        Args:
            payloads: the events.
            now: the time in seconds since 1970.
        """
        tokens: dict[bytes, float] = {}
        rules: _Rules = {}
        left: list[bytes] = []
        for payload in payloads:
            found = read_revocation(payload)
            if found is None:
                left.append(payload)
                continue
            _, occurred_at, fields = found
            if "token_id" in fields:  # as in most events
                self._add_token(tokens, fields["token_id"], fields.get("expires_at"), now)
            else:
                self._add(rules, rule_from(occurred_at, fields), now)
        return self._entries(_decoded(left), now, tokens, rules)

    def entries(self, events: Iterable[Event], *, now: float) -> list[LedgerEntry]:
        """Return the entries of events, each once."""
        return self._entries(events, now, {}, {})

    def _entries(
        self, events: Iterable[Event], now: float, tokens: dict[bytes, float], rules: _Rules
    ) -> list[LedgerEntry]:
        """Return the entries of events, with those of tokens and rules that are known already."""
        rotations: dict[bytes, LedgerEntry] = {}
        for event in events:
            if type(event) is KeyRotated:
                rotation = ROTATION + encode_event(event, source=event.source or _NO_SOURCE)
                rotations[rotation] = LedgerEntry(rotation, math.inf)
            elif type(event) is TokenRevoked and event.token_id and event.claims is None and not event.everyone:
                # Fast path: most events are about one token, and their rule is the token's name.
                self._add_token(tokens, event.token_id, event.expires_at, now)
            else:
                for rule in rules_of(event):
                    self._add(rules, rule, now)
        found = (entry_of(*rule) for rule in rules.values())
        return [*map(_new_entry, repeat(LedgerEntry), tokens.items()), *found, *rotations.values()]

    def _add_token(self, tokens: dict[bytes, float], name: str, expires_at: datetime | None, now: float) -> None:
        if expires_at is not None:
            until = expires_at.timestamp()
        else:
            until = ENDLESS if self._lasting is None else now + self._lasting
        if until + GRACE > now:
            content = _TOKEN + name.encode()
            if until >= tokens.get(content, until):
                tokens[content] = until

    def _add(self, rules: _Rules, rule: Rule, now: float) -> None:
        until = rule.ends_at(now=now, lasting=self._lasting)
        if until + GRACE <= now:
            return
        about = (rule.kind, rule.names, rule.spared_session, rule.conditions)
        if (other := rules.get(about)) is not None:
            rule, until = max(rule, other[0], key=lambda one: one.cutoff), max(until, other[1])
        rules[about] = rule, until


def restore(rules: Rules, entries: Sequence[tuple[bytes, float]]) -> list[Event]:
    """Put the rules of entries in force, all or none, and return the events among them, which are not in force yet.

    Raises:
        ForeignEntry: one of them is no rule of this version.
    """
    batch = LedgerBatch.of(entries)
    names = _names_of_tokens(batch.contents)
    if names is not None:  # Fast path: most rules are about tokens.
        rules.restore("token", names, [EVERY_TOKEN] * len(names), batch.until)
        return []
    groups: defaultdict[bytes, LedgerBatch] = defaultdict(lambda: LedgerBatch([], []))
    for content, until in batch:
        groups[content[:1]].append(content, until)
    rotations = [_rotation(content) for content in groups.pop(ROTATION, _NO_ENTRIES).contents]
    bulk = [_bulk(kind, groups.pop(_LETTERS[kind], _NO_ENTRIES)) for kind in _BULK]
    others = [rule_of(content, until) for group in groups.values() for content, until in group]
    for kind, columns in zip(_BULK, bulk, strict=True):
        rules.restore(kind, *columns)
    for rule, until in others:
        rules.restore_one(rule, until=until)
    return rotations


def restore_all(rules: Rules, entries: Sequence[tuple[bytes, float]]) -> tuple[list[Event], int]:
    """Put the rules of entries in force, and pass over what is no rule; return the events, and how many are none."""
    try:
        return restore(rules, entries), 0
    except ForeignEntry:
        pass
    rotations: list[Event] = []
    foreign = 0
    for entry in entries:
        try:
            rotations += restore(rules, [entry])
        except ForeignEntry:
            foreign += 1
    return rotations, foreign


def count_kinds(entries: Sequence[tuple[bytes, float]]) -> tuple[Counter[RuleKind], int]:
    """Return how many entries there are of each kind, with rotations as those about keys, and how many are no rule."""
    kinds, foreign = Counter[RuleKind](), 0
    tokens = [content for content, _ in entries if content[:1] == _TOKEN]
    try:
        kinds["token"] = len(_texts(tokens, 1))
        others = entries if not tokens else [entry for entry in entries if entry[0][:1] != _TOKEN]
    except ForeignEntry:
        others = entries
    for content, until in others:
        try:
            kinds["key" if content[:1] == ROTATION else rule_of(content, until)[0].kind] += 1
        except ForeignEntry:
            foreign += 1
    return kinds, foreign


def _names_of_tokens(contents: Sequence[bytes]) -> list[str] | None:
    """Return the names in entries if each is about a token, and no name holds a line feed; parsed all at once."""
    together = b"\n".join(contents)
    if together[:1] != _TOKEN or together.count(b"\n") >= len(contents):
        return None
    try:
        names = str(memoryview(together)[1:], "utf-8").split(_NEXT_TOKEN)
    except UnicodeDecodeError:
        return None
    return None if len(names) < len(contents) or "" in names else names


def _bulk(kind: RuleKind, entries: LedgerBatch) -> tuple[list[str], list[int], Sequence[float]]:
    """Parse entries of a kind with one identifier that nothing narrows, and that end or are about a token."""
    if kind == "token":
        names = _texts(entries.contents, 1)
        return names, [EVERY_TOKEN] * len(names), entries.until
    end = 1 + _SIZE_OF_CUTOFF
    names = _texts(entries.contents, end)
    cutoffs = [int.from_bytes(content[1:end], "big") for content in entries.contents]
    if cutoffs and max(cutoffs) > EVERY_TOKEN:
        raise ForeignEntry(f"an entry of the ledger about a {kind} is cut off")
    return names, cutoffs, entries.until


def _texts(contents: Sequence[bytes], start: int) -> list[str]:
    try:
        names = [str(content[start:], "utf-8") for content in contents]
    except UnicodeDecodeError:
        raise ForeignEntry("an entry of the ledger is not text") from None
    if "" in names:
        raise ForeignEntry("an entry of the ledger is cut off")
    return names


def _rotation(content: bytes) -> Event:
    try:
        return decode(content[1:]).event
    except DecodeError:
        raise ForeignEntry("an entry of the ledger is no rotation") from None


def _decoded(payloads: Iterable[bytes]) -> Iterator[Event]:
    for payload in payloads:
        try:
            yield decode(payload).event
        except DecodeError:
            continue  # every reader of the stream has reported it
