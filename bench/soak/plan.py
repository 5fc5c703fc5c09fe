"""The faults of a run, and their order. A pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

ROLES = ("publisher", "subscriber", "list")
"""What the processes do that faults are about."""

# The number of faults of each kind in a block. Each block is shuffled, and used up before the next one, so that a short
# run has every kind too.
BLOCKS: Mapping[str, Mapping[str, int]] = {
    "single": {
        "kill all": 1,
        "kill server": 3,
        "freeze server": 2,
        "pause clients": 2,
        "kill connections": 3,
        "kill subscriber": 4,
        "stop subscriber": 2,
        "freeze subscriber": 2,
        "freeze publisher": 1,
        "kill publisher": 1,
    },
    "sentinel": {
        "kill primary": 2,
        "restart primary": 1,
        "freeze primary": 2,
        "cut off primary": 2,
        "cut off replica": 1,
        "restart replica": 1,
        "planned failover": 2,
        "late name": 1,
        "demote primary": 1,
        "kill sentinel": 1,
        "kill connections": 1,
        "kill subscriber": 1,
        "freeze subscriber": 1,
        "freeze publisher": 1,
        "kill publisher": 2,
    },
    "cluster": {
        "kill owner": 2,
        "isolate owner": 2,
        "freeze owner": 1,
        "cluster failover": 3,
        "migrate slot": 3,
        "migrate keys": 2,
        "reshard": 1,
        "add and remove node": 1,
        "kill connections": 1,
        "kill subscriber": 1,
        "freeze subscriber": 1,
        "freeze publisher": 1,
        "kill publisher": 1,
    },
}

# What is added for each block where lists are asked.
_LISTS: Mapping[str, int] = {"kill list": 1, "freeze list": 1}

_MIN_SECONDS, _MAX_SECONDS, _MODE_SECONDS = 0.1, 3.0, 0.3
"""The duration of a fault, in seconds: triangular distribution."""

_OVERLAPPING = 0.35
"""The share of faults that do not wait for the end of the fault before."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to inject.

    Attributes:
        number: its index in the plan, from 0.
        kind: what is done, such as ``kill server``.
        target: the name of the process that it is done to.
        seconds: how long it lasts; for a server that is killed, how long it stays down.
        at: when it begins, as a part of its share of the events.
        overlaps: whether it begins even if earlier faults have not ended.
    """

    number: int
    kind: str
    target: str
    seconds: float
    at: float
    overlaps: bool


def make_plan(
    seed: int,
    faults: int,
    *,
    topology: str = "single",
    publishers: Sequence[str],
    subscribers: Sequence[str],
    lists: Sequence[str] = (),
    also: Collection[str] = (),
    without: Collection[str] = (),
    only: Collection[str] = (),
) -> list[Fault]:
    """Return a plan of `faults` faults, the same for the same arguments.

    Args:
        seed: of the random numbers.
        faults: how many faults to plan.
        publishers: the names of the processes that publish.
        topology: the servers, one of `BLOCKS`.
        subscribers: the names of those that handle.
        lists: the names of those that are asked.
        also: more kinds, one of each in every block, that affect the server.
        without: kinds to leave out.
        only: the kinds to plan, one of each in every block; empty for those of the topology.
    """
    chance = random.Random(seed)
    kinds: list[str] = []
    targets = {"publisher": publishers, "subscriber": subscribers, "list": lists, "all": ("all",)}
    counts = dict.fromkeys(only, 1) or {**BLOCKS[topology], **(_LISTS if lists else {})}
    possible = {kind: count for kind, count in counts.items() if kind not in without and targets.get(_last(kind), True)}
    while len(kinds) < faults:
        block = [*(kind for kind, count in possible.items() for _ in range(count)), *also]
        chance.shuffle(block)
        kinds += block
    return [
        Fault(
            number=number,
            kind=kind,
            target=chance.choice(targets.get(_last(kind), ("server",))),
            seconds=round(chance.triangular(_MIN_SECONDS, _MAX_SECONDS, _MODE_SECONDS), 2),
            at=round(chance.random(), 2),
            overlaps=chance.random() < _OVERLAPPING,
        )
        for number, kind in enumerate(kinds[:faults])
    ]


def _last(kind: str) -> str:
    return kind.rsplit(maxsplit=1)[-1]
