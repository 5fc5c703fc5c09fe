"""Findings about a cluster: who owns the key, whether that can be proven, and what happens after a crash. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jwt_events.cli.doctor._finding import Finding, Level
from jwt_events.transport.connection import Membership

_ELECTION = 1.0  # seconds that a replica takes to be elected, at least, once its primary is known to be down
_SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the owner of the key says of its cluster.

    Attributes:
        owner: where it is, as messages name it.
        is_named: whether the URL is that of a cluster, not that of one node.
        membership: what it says of itself and of the primaries; ``None`` if it did not tell.
        fields: what CLUSTER INFO tells.
        contradicting: the addresses of nodes that name another owner.
    """

    owner: str
    is_named: bool = True
    membership: Membership | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    contradicting: Sequence[str] = ()


def cluster(
    found: ClusterFacts | None, settings: Mapping[str, str], info: Mapping[str, str], *, max_staleness: float
) -> Iterator[Finding]:
    """Judge a cluster; nothing if there is none.

    Args:
        found: what its owner says.
        settings: the settings that CONFIG GET returned.
        info: the fields of INFO.
        max_staleness: that of the lists.
    """
    if found is None:
        return
    yield _state(found)
    if not found.is_named:
        advice = "Use redis+cluster://: through one node nothing is found while that node is down."
        yield Finding("cluster URL", Level.WARNING, "the URL names one node of a cluster", advice)
    if found.contradicting:
        advice = "Publishers and lists may part: take nodes of other clusters out of the URL. A failover ends."
        text = "; ".join(f"{other} names another owner than {found.owner}" for other in found.contradicting)
        yield Finding("owner", Level.PROBLEM, text, advice)
    if settings.get("cluster-allow-reads-when-down") == "yes":
        advice = "A node that was replaced may go on replying for ever: set it to no."
        yield Finding("reads when down", Level.PROBLEM, "cluster-allow-reads-when-down yes", advice)
    if info.get("role") == "master" and info.get("connected_slaves", "0") == "0":
        advice = "When the owner fails, lists are stale and nothing is published until it is back: add a replica."
        yield Finding("owner's replicas", Level.WARNING, "none", advice)
    yield from _node_timeout(settings, max_staleness)


def _state(found: ClusterFacts) -> Finding:
    membership, covered = found.membership, int(found.fields.get("cluster_slots_ok", _SLOTS))
    if membership is None:
        advice = "Lists and publishers need the rights +cluster|slots, +cluster|info, +cluster|nodes and +time."
        return Finding("cluster", Level.PROBLEM, "this user may not ask about it", advice)
    seen = f"{found.owner} owns the key; {membership.in_contact} of {membership.size} primaries in contact"
    if not membership.is_up or membership.in_contact < membership.majority:
        advice = "No list is ever fresh: start the nodes that are missing, or mend the network between them."
        return Finding("cluster", Level.PROBLEM, seen if membership.is_up else f"{seen}; it is down", advice)
    if covered < _SLOTS:
        advice = "Find out which node lost them, by CLUSTER NODES: keys in them are out of reach."
        return Finding("cluster", Level.WARNING, f"{seen}; {_SLOTS - covered} slots have no owner", advice)
    if membership.size < 3:
        advice = "Two primaries, or one, elect no successor of one that fails: use three."
        return Finding("cluster", Level.WARNING, seen, advice)
    return Finding("cluster", Level.OK, f"{seen}; all slots have owners")


def _node_timeout(settings: Mapping[str, str], max_staleness: float) -> Iterator[Finding]:
    value = settings.get("cluster-node-timeout", "")
    if not value.isdecimal():
        advice = "CONFIG GET is refused: ask who runs the cluster for cluster-node-timeout."
        yield Finding("node timeout", Level.UNKNOWN, "not told", advice)
        return
    timeout = int(value) / 1000
    if (stale := timeout + _ELECTION - max_staleness) > 0:
        advice = f"Lists refuse every token for at least {stale:g} s after a crash of the owner: lower it to 2000."
        yield Finding("node timeout", Level.NOTE, f"cluster-node-timeout {value}", advice)
    else:
        yield Finding("node timeout", Level.OK, f"{timeout:g} s")
