"""Judges what a reader found in a ledger: whether everything that was removed from the stream is in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.transport._stream.ledger_head import LedgerHead, united
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.base import Gap

# Seconds for which readers that start are told of a loss that a folder found: longer than nearly all tokens live.
_LOSS_IS_TOLD_FOR = 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class LedgerState:
    """A ledger and its stream at one moment.

    Attributes:
        head: the head of the ledger; ``None`` if there is no ledger.
        stream: the state of the stream.
        kept: how many entries of the ledger are needed after the head's ``beyond``.
    """

    head: LedgerHead | None
    stream: StreamInfo
    kept: int = 0

    def joined(self, plain: LedgerState | None) -> LedgerState:
        """Return the state of this ledger as if another one of its stream had been merged into it."""
        if plain is None or plain.head is None:
            return self
        if self.head is None:
            return LedgerState(plain.head, self.stream, plain.kept)
        return replace(self, head=united(self.head, plain.head, self.stream))


class LedgerAudit:
    """What one reader knows of a ledger from one complete reading to the next."""

    def __init__(self) -> None:
        self._known: LedgerHead | None = None
        self._is_first = True

    def judge(
        self, found: LedgerState, trimmed: Sequence[Gap], *, now: float, plain: LedgerState | None = None
    ) -> list[Gap]:
        """Return what is missing, after all of the ledger was read.

        Args:
            found: the ledger after that, and the stream at the same moment.
            trimmed: which entries the reader found to be removed before it read them.
            now: the time in seconds since 1970; if in doubt, the latest that it may be.
            plain: the ledger under its plain name, which was read before; ``None`` if there is none.
        """
        shrunk = [] if plain is None or found.head is None else _shrunk(plain, now)
        return [*shrunk, *self._judge(found.joined(plain), trimmed, now)]

    def _judge(self, found: LedgerState, trimmed: Sequence[Gap], now: float) -> list[Gap]:
        known, is_first = self._known, self._is_first
        self._is_first = False
        if found.head is None:
            self._known = None
            if known is not None:
                return [Gap(known.position, "ledger"), *trimmed]
            return _unfolded(found.stream) if is_first else list(trimmed)
        head, missing = found.head, found.head.missing(found.stream)
        self._known = replace(head, lost=head.lost + (missing or 0))
        gaps = _damage(known, found, now)
        if missing is None:
            return [*gaps, Gap(head.position, "deleted")] if is_first or trimmed else gaps
        if is_first:
            lost = head.lost + missing
            is_recent = now - head.lost_at / 1000 < _LOSS_IS_TOLD_FOR
            return [*gaps, Gap(OLDEST, "trimmed", lost or None)] if missing or is_recent else gaps
        return [*gaps, *_uncovered(known, head, missing, trimmed)]


def _unfolded(stream: StreamInfo) -> list[Gap]:
    """Return what a reader that starts misses where there is no ledger: all that was removed, if that was counted."""
    return [Gap(OLDEST, "trimmed", stream.removed)] if stream.removed else []


def _damage(known: LedgerHead | None, found: LedgerState, now: float) -> list[Gap]:
    """Return what was done to the ledger itself."""
    head = found.head or LedgerHead()
    if known is not None and sort_key(head.position) < sort_key(known.position):
        return [Gap(head.position, "ledger")]
    return _shrunk(found, now)


def _shrunk(found: LedgerState, now: float) -> list[Gap]:
    head = found.head or LedgerHead()
    return [Gap(OLDEST, "ledger", head.kept - found.kept)] if found.kept < head.kept and now < head.beyond else []


def _uncovered(known: LedgerHead | None, head: LedgerHead, missing: int, trimmed: Sequence[Gap]) -> list[Gap]:
    """Return which of the removed entries were not folded, as far as can be known; if in doubt, some were not."""
    if not trimmed:
        return []
    before = known or LedgerHead()
    lost = head.lost + missing - before.lost
    since = trimmed[0].since or OLDEST
    if sort_key(head.position) <= sort_key(since) and missing == 0 and head.counted is None:
        return list(trimmed)  # nobody has folded what came after, and the server does not count
    if lost > 0 or head.lost_at > before.lost_at:
        return [Gap(since, "trimmed", lost if lost > 0 else None)]
    return []
