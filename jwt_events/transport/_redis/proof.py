"""Whether what a server said proves that a reader of it is current. Pure: no I/O, no clock.

An empty read proves that there is nothing newer only if it comes from the primary. A server that was replaced may not
know it: cut off from its replicas and its Sentinels, it goes on as before. So a proof is made of all that was said at
one moment: by the server about itself, its replicas and its cluster, and by the Sentinels about the server. What was
not said is no proof.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from jwt_events.errors import NotProven
from jwt_events.transport._redis.membership import Membership
from jwt_events.transport._redis.survey import Address, Survey

MAX_LAG = 2
"""Seconds since a replica was last heard of, as its primary counts them, within which it is in contact."""

_PRIMARY = "master"
_REPLICA = re.compile(r"slave\d+")


class Doubt(StrEnum):
    """Why nothing is proven; a label of a metric."""

    REPLICA = "replica"
    UNKNOWN_ROLE = "unknown_role"
    FEW_REPLICAS = "few_replicas"
    FEW_SENTINELS = "few_sentinels"
    OTHER_PRIMARY = "other_primary"
    CALLED_DOWN = "called_down"
    FAILING_OVER = "failing_over"
    OTHER_OWNER = "other_owner"
    CLUSTER_DOWN = "cluster_down"
    FEW_PRIMARIES = "few_primaries"


_TO_BE_LEFT = frozenset({Doubt.REPLICA, Doubt.UNKNOWN_ROLE, Doubt.OTHER_PRIMARY, Doubt.OTHER_OWNER, Doubt.CLUSTER_DOWN})


@dataclass(frozen=True, slots=True)
class Replication:
    """What a server says about its place in a replication.

    Attributes:
        role: what it says of itself; empty if it does not say.
        lags: for each replica that is online, the seconds since it was last heard of; ascending.
        listed: how many replicas there are, online or not.
        history: the name of the history of writes that it has; empty if it does not say.
        offset: how much of that history it has.
        earlier: the name of the history that it continued when it was promoted, or its primary was; empty for none.
        continued_at: how much of that history it has, and one more.
        near: host and port of each replica that is online and in contact, as the server sees them.
        is_following: whether it is a replica that is connected to its primary and takes writes from nothing else.
    """

    role: str = ""
    lags: tuple[int, ...] = ()
    listed: int = 0
    history: str = ""
    offset: int = 0
    earlier: str = ""
    continued_at: int = 0
    near: tuple[Address, ...] = ()
    is_following: bool = False

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Replication:
        """Make it of the fields of INFO replication."""
        lags, near, listed = [], [], 0
        for name, value in fields.items():
            if _REPLICA.fullmatch(name):
                listed += 1
                parts = dict(part.partition("=")[::2] for part in value.split(","))
                if parts.get("state") == "online" and parts.get("lag", "").isdecimal():
                    lags.append(int(parts["lag"]))
                    if lags[-1] <= MAX_LAG and parts.get("ip") and parts.get("port", "").isdecimal():
                        near.append((parts["ip"], int(parts["port"])))
        earlier = fields.get("master_replid2", "").strip("0")
        return cls(
            role=fields.get("role", ""),
            lags=tuple(sorted(lags)),
            listed=listed,
            history=fields.get("master_replid", ""),
            offset=_number(fields, "master_repl_offset"),
            earlier=fields["master_replid2"] if earlier else "",
            continued_at=_number(fields, "second_repl_offset"),
            near=tuple(near),
            is_following=fields.get("master_link_status") == "up" and fields.get("slave_read_only") == "1",
        )

    def end_of(self, history: str) -> int | None:
        """Return how much there ever was of a history, as the server that wrote it says when it is a replica.

        ``None`` if it does not say: it is still writing, or it took over another history from the beginning.
        """
        if self.role != "slave" or not history:
            return None
        if self.history == history:
            return self.offset
        return self.continued_at - 1 if self.earlier == history else None

    def has_all_of(self, history: str, end: int) -> bool:
        """Whether this server continued a history that ended there, and has all of it."""
        return self.earlier == history != "" and self.continued_at > end

    def has_reached(self, primary: Replication) -> bool:
        """Whether this server has all that its primary had when it said so: the same history, and as much of it."""
        return self.history == primary.history != "" and self.offset >= primary.offset

    def was_replaced_since(self, before: Replication) -> bool:
        """Whether this server, the same process as before, followed another one in between."""
        return self.history != before.history != "" and self.earlier not in ("", before.history, before.earlier)


def _number(fields: Mapping[str, str], name: str) -> int:
    value = fields.get(name, "")
    return int(value) if value.isdecimal() and len(value) < 20 else 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What was said at one moment, and what it proves.

    Attributes:
        address: the server, as messages name it.
        replication: what it said of itself and of its replicas.
        asked_at: when the questions were sent.
        replicas: how many replicas must be in contact with it.
        place: where it is, as the Sentinels name it.
        survey: what the Sentinels said that were asked at that time or later; ``None`` if there are none.
        membership: what it said of its cluster; ``None`` if it is in none.
    """

    address: str
    replication: Replication
    asked_at: float = 0.0
    replicas: int = 0
    place: Address | None = None
    survey: Survey | None = None
    membership: Membership | None = None

    @property
    def doubt(self) -> Doubt | None:
        """Why it proves nothing; ``None`` if it proves that the server is the primary."""
        if self.replication.role != _PRIMARY:
            return Doubt.REPLICA if self.replication.role else Doubt.UNKNOWN_ROLE
        if self.survey is not None and (doubt := self._doubt_of(self.survey)) is not None:
            return doubt
        if self.membership is not None and (doubt := _doubt_of(self.membership)) is not None:
            return doubt
        return Doubt.FEW_REPLICAS if self.replicas and self._lag > MAX_LAG else None

    def _doubt_of(self, survey: Survey) -> Doubt | None:
        place, primary = self.place, survey.primary
        if primary is not None and primary != place:
            return Doubt.OTHER_PRIMARY
        if place is None or primary is None:
            return Doubt.FEW_SENTINELS
        if survey.opposing(place) >= survey.quorum:
            return Doubt.CALLED_DOWN
        return Doubt.FAILING_OVER if survey.is_failing_over(place) else None

    @property
    def _lag(self) -> int:
        """Seconds since as many replicas as needed were last heard of, as the server counts: in whole seconds."""
        lags = self.replication.lags
        return lags[self.replicas - 1] if len(lags) >= self.replicas else MAX_LAG + 1

    @property
    def current_as_of(self) -> float | None:
        """The time at which the server was certainly the primary; ``None`` if that is not proven.

        A replica that was last heard of a while ago may have been promoted since, so the proof is as old. A replica is
        heard of once a second, so one second is no delay.
        """
        if self.doubt is not None:
            return None
        return self.asked_at - max(0, self._lag - 1) if self.replicas else self.asked_at

    @property
    def must_be_left(self) -> bool:
        """Whether the server is no primary, so that nothing is to be read from it."""
        return self.doubt in _TO_BE_LEFT

    def error(self, *, maybe_done: bool = False) -> NotProven:
        """Return the error that says why nothing is proven.

        Args:
            maybe_done: whether the server may have carried out a command that was sent with the questions.
        """
        doubt = self.doubt
        assert doubt is not None  # noqa: S101 - for the type checker: it is asked for only then
        return NotProven(f"{self.address} {self._problem(doubt)}", reason=doubt.value, maybe_done=maybe_done)

    def require(self, *, maybe_done: bool = False) -> None:
        """Return if the server is known to be the primary.

        Raises:
            NotProven: it is not; another connection to the same address may reach the primary a moment later.
        """
        if self.doubt is not None:
            raise self.error(maybe_done=maybe_done)

    @property
    def may_be_replaced(self) -> bool:
        """Whether the server may have been replaced, so that it is to be left if that lasts."""
        if self.doubt is Doubt.FEW_PRIMARIES:
            return True
        return self.doubt is Doubt.FEW_REPLICAS and self.survey is None

    def _problem(self, doubt: Doubt) -> str:
        if (words := _WORDS.get(doubt)) is not None:
            return words
        if doubt is Doubt.FEW_REPLICAS:
            near = sum(lag <= MAX_LAG for lag in self.replication.lags)
            return f"is in contact with {near} replicas, and {self.replicas} are needed (replicas={self.replicas})"
        if self.membership is not None and doubt is Doubt.FEW_PRIMARIES:
            found, needed = self.membership.in_contact, self.membership.majority
            return f"is in contact with {found} of {self.membership.size} primaries, {needed} are needed"
        assert self.survey is not None  # noqa: S101 - for the type checker: all other doubts are about it
        if doubt is Doubt.FEW_SENTINELS or self.place is None:
            return f"is not proven to be the primary: {few_sentinels(self.survey, self.place)}"
        return f"is not proven to be the primary: {self.survey.opposing(self.place)} Sentinels call it down"


_WORDS = {
    Doubt.REPLICA: "is a replica, not the primary: use the address of the primary",
    Doubt.UNKNOWN_ROLE: "does not tell whether it is the primary: use the address of the primary",
    Doubt.OTHER_PRIMARY: "is no primary any more: a majority of the Sentinels name another server",
    Doubt.OTHER_OWNER: "does not own the slot of the key any more",
    Doubt.CLUSTER_DOWN: "says that its cluster is down",
    Doubt.FAILING_OVER: "is not proven to be the primary: a Sentinel is replacing it",
}


def _doubt_of(membership: Membership) -> Doubt | None:
    if not membership.is_owner:
        return Doubt.OTHER_OWNER
    if not membership.is_up:
        return Doubt.CLUSTER_DOWN
    return Doubt.FEW_PRIMARIES if membership.in_contact < membership.majority else None


def few_sentinels(survey: Survey, place: Address | None) -> str:
    """Return, in words, that no majority of the Sentinels names this server; ``None`` for any server."""
    problems = survey.problems
    told = f"{survey.supporting(place)} of {survey.size} Sentinels name it, {survey.majority} are needed"
    return told + (problems and f" ({problems})")
