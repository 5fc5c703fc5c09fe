"""What a revocation list answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from jwt_events.revocation._claims import RuleKind
from jwt_events.revocation._rules import Match


class Verdict(StrEnum):
    """Whether to let a token in. True only for ``ALLOW``, so that ``if not list.check(claims)`` means what it says.

    Attributes:
        ALLOW: no revocation of it is known, and all that existed ``max_staleness`` ago are known.
        REVOKED: it is revoked. Known even when the list is stale.
        STALE: nobody knows.
    """

    ALLOW = "allow"
    REVOKED = "revoked"
    STALE = "stale"

    def __bool__(self) -> bool:
        return self is Verdict.ALLOW


class Explanation(NamedTuple):
    """A verdict and its reasons.

    Attributes:
        verdict: the verdict.
        rule: the rule that revoked the token; ``None`` if none did.
        staleness: seconds since the list was last proven current.
    """

    verdict: Verdict
    rule: Match | None
    staleness: float


@dataclass(frozen=True, slots=True)
class RevocationStats:
    """What a revocation list knows and has answered since it was made.

    Attributes:
        rules: how many rules of each kind are in force.
        events: events taken in, those of the history included.
        gaps: how often events may have been missed.
        decode_errors: deliveries that were no events.
        allowed: how often the answer was to let a token in.
        revoked: how often it was that the token is revoked.
        stale: how often it was that nobody knows.
        stale_allows: how often a token was let in although nobody knows: only with ``on_stale="allow"``; included in
            ``allowed``.
    """

    rules: Mapping[RuleKind, int]
    events: int
    gaps: int
    decode_errors: int
    allowed: int
    revoked: int
    stale: int
    stale_allows: int
