"""Results of a revocation list: verdict, explanation, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from jwt_events.revocation._claims import RuleKind
from jwt_events.revocation._rules import Match


class Verdict(StrEnum):
    """Whether to let a token in. Truthy only for ``ALLOW``, so that ``if not list.check(claims)`` means what it says.

    Attributes:
        ALLOW: no revocation of the token is known, and all revocations that existed ``max_staleness`` ago are known.
        REVOKED: the token is revoked. Known even when the list is stale.
        STALE: the list is stale, so the token may have been revoked.
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
        rule: the rule that revoked the token; ``None`` if there is none.
        staleness: seconds since the list was last proven current.
    """

    verdict: Verdict
    rule: Match | None
    staleness: float


@dataclass(frozen=True, slots=True)
class RevocationStats:
    """Counts of a revocation list since it was constructed.

    Attributes:
        rules: rules in force, by kind.
        events: events applied, those of the history included.
        gaps: how often events may have been missed.
        decode_errors: deliveries that were not events.
        allowed: checks that returned `Verdict.ALLOW`.
        revoked: checks that returned `Verdict.REVOKED`.
        stale: checks that returned `Verdict.STALE`.
        stale_allows: checks that returned `Verdict.ALLOW` although the list was stale: only with ``on_stale="allow"``;
            included in ``allowed``.
    """

    rules: Mapping[RuleKind, int]
    events: int
    gaps: int
    decode_errors: int
    allowed: int
    revoked: int
    stale: int
    stale_allows: int
