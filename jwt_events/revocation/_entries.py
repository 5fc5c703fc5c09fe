"""What a ledger says about revocations: events as its entries, and entries as rules. Pure: the time is passed in.

An entry that is a rule holds the kind of identifier, the cutoff, and the identifiers as text, since the hash of a text
differs from process to process. An entry about a signing key is its event, complete: rotations are few, and
`SigningKeys` need all that they say. Entries are monotone like the rules: those of the same events in any order, folded
at once or one by one, put the same rules in force; of several about one identifier the maximum counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

from jwt_events.envelope import decode, encode_event
from jwt_events.errors import DecodeError
from jwt_events.events import Event, KeyRotated
from jwt_events.revocation._claims import RuleKind
from jwt_events.revocation._packed import EVERY_TOKEN
from jwt_events.revocation._rules import GRACE, Rule, Rules, rules_of
from jwt_events.transport.base import LedgerEntry

ROTATION = b"r"
"""The first byte of entries that are the event of a rotation."""

_NO_SOURCE = "unknown"

_LETTERS: Mapping[RuleKind, bytes] = {
    "token": b"t",
    "session": b"s",
    "user_at_client": b"b",
    "user": b"u",
    "client": b"c",
}
_KINDS: Mapping[int, RuleKind] = {letter[0]: kind for kind, letter in _LETTERS.items()}
_TOKEN = _LETTERS["token"]
_SIZE_OF_CUTOFF = 6
_SIZE_OF_LENGTH = 2

assert set(_LETTERS) | {"key"} == set(get_args(RuleKind))  # noqa: S101 - a kind that is added needs a letter


class ForeignEntry(ValueError):
    """An entry of a ledger that is no rule of this version."""


class RuleEntry(NamedTuple):
    """A rule as an entry of a ledger holds it.

    Attributes:
        kind: the kind of identifier that it names.
        names: that identifier, or both.
        cutoff: tokens issued up to this instant are revoked, in milliseconds since 1970; or `EVERY_TOKEN`.
        tail: what else narrows the rule; empty for nothing.
    """

    kind: RuleKind
    names: tuple[str, ...]
    cutoff: int = EVERY_TOKEN
    tail: bytes = b""

    def encode(self) -> bytes:
        """Return the content of the entry: a small letter where nothing narrows the rule, else a capital one."""
        parts = [_LETTERS[self.kind] if not self.tail else _LETTERS[self.kind].upper()]
        if self.kind != "token":
            parts.append(self.cutoff.to_bytes(_SIZE_OF_CUTOFF, "big"))
        *first, last = (name.encode() for name in self.names)
        for name in first if not self.tail else (*first, last):
            parts += len(name).to_bytes(_SIZE_OF_LENGTH, "big"), name
        parts.append(self.tail or last)
        return b"".join(parts)

    @classmethod
    def parse(cls, content: bytes) -> RuleEntry:
        """Parse the content of an entry.

        Raises:
            ForeignEntry: it is no rule.
        """
        kind = _KINDS.get(content[0] | 32) if content else None
        if kind is None:
            raise ForeignEntry("an entry of the ledger is of no kind that this version knows")
        is_narrowed = content[0] & 32 == 0
        at, cutoff = 1, EVERY_TOKEN
        if kind != "token":
            at += _SIZE_OF_CUTOFF
            cutoff = int.from_bytes(content[1:at], "big")
        names: list[bytes] = []
        for _ in range((kind == "user_at_client") + is_narrowed):
            end = at + _SIZE_OF_LENGTH + int.from_bytes(content[at : at + _SIZE_OF_LENGTH], "big")
            names.append(content[at + _SIZE_OF_LENGTH : end])
            at = end
        tail = content[at:]
        if at >= len(content) or cutoff > EVERY_TOKEN or not all(names):
            raise ForeignEntry("an entry of the ledger is cut off")
        if not is_narrowed:
            names.append(tail)
            tail = b""
        try:
            return cls(kind, tuple(name.decode() for name in names), cutoff, tail)
        except UnicodeDecodeError:
            raise ForeignEntry("an entry of the ledger is not text") from None


class Folding:
    """Says what is still in force of events that are removed from a stream. Holds no state.

    Args:
        lasting: for how many seconds rules are needed whose events do not say when they expire; ``None`` for ever.
    """

    def __init__(self, lasting: float | None) -> None:
        self._lasting = lasting

    def __call__(self, payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
        """Return the entries of encoded events; bytes that are not an event revoke nothing.

        Args:
            payloads: the events.
            now: the time in seconds since 1970.
        """
        return self.entries(_decoded(payloads), now=now)

    def entries(self, events: Iterable[Event], *, now: float) -> list[LedgerEntry]:
        """Return the entries of events, each once."""
        rules: dict[tuple[str, ...], LedgerEntry] = {}
        rotations: dict[bytes, LedgerEntry] = {}
        for event in events:
            if type(event) is KeyRotated:
                rotation = ROTATION + encode_event(event, source=event.source or _NO_SOURCE)
                rotations[rotation] = LedgerEntry(rotation, math.inf)
                continue
            for rule in rules_of(event):
                self._add(rules, rule, now)
        return [*rules.values(), *rotations.values()]

    def _add(self, rules: dict[tuple[str, ...], LedgerEntry], rule: Rule, now: float) -> None:
        until = rule.ends_at(now=now, lasting=self._lasting)
        if until + GRACE <= now:
            return
        content = RuleEntry(rule.kind, rule.names, rule.cutoff).encode()
        about = (rule.kind, *rule.names)
        if (other := rules.get(about)) is not None:  # its cutoff is compared by its bytes, which begin with it
            content, until = max(content, other.content), max(until, other.until)
        rules[about] = LedgerEntry(content, until)


def restore(rules: Rules, entries: Sequence[tuple[bytes, float]]) -> list[Event]:
    """Put the rules of entries in force, all or none, and return the events among them, which are not in force yet.

    Raises:
        ForeignEntry: one of them is no rule of this version.
    """
    tokens = [entry for entry in entries if entry[0][:1] == _TOKEN]
    others = [] if len(tokens) == len(entries) else [entry for entry in entries if entry[0][:1] != _TOKEN]
    by_kind: dict[RuleKind, list[tuple[RuleEntry, float]]] = {}
    for content, until in others:
        if content[:1] != ROTATION:
            rule = RuleEntry.parse(content)
            if rule.tail:
                raise ForeignEntry("a rule in the ledger is narrowed in a way that this version does not know")
            by_kind.setdefault(rule.kind, []).append((rule, until))
    try:
        names = [str(content, "utf-8")[1:] for content, _ in tokens]
    except UnicodeDecodeError:
        raise ForeignEntry("an entry of the ledger is not text") from None
    if "" in names:
        raise ForeignEntry("an entry of the ledger is cut off")
    rotations = [_rotation(content) for content, _ in others if content[:1] == ROTATION]
    rules.restore("token", names, [EVERY_TOKEN] * len(names), [until for _, until in tokens])
    for kind, found in by_kind.items():
        instants = [until for _, until in found]
        cutoffs = [rule.cutoff for rule, _ in found]
        if kind == "user_at_client":
            rules.restore(kind, [rule.names for rule, _ in found], cutoffs, instants)
        else:
            rules.restore(kind, [rule.names[0] for rule, _ in found], cutoffs, instants)
    return rotations


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
