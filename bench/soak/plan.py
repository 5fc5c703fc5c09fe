"""Which faults, in which order. A pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

# How many of each there are in twenty-one. Decks are dealt to the end before the next is shuffled, so that a short run
# sees every kind, too.
_DECK: Mapping[str, int] = {
    "kill everybody": 1,
    "kill server": 3,
    "freeze server": 2,
    "pause clients": 2,
    "kill connections": 3,
    "kill subscriber": 4,
    "stop subscriber": 2,
    "freeze subscriber": 2,
    "freeze publisher": 1,
    "kill publisher": 1,
}

_MIN_PAUSE, _MAX_PAUSE, _MODE = 0.1, 3.0, 0.3
"""Of a fault that lasts, in seconds."""

_OVERLAPPING = 0.35
"""The share of faults that do not wait for the end of the one before."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        number: counts them, from 0.
        kind: what.
        target: the name of the process that it happens to.
        seconds: how long it lasts; for a server that is killed, how long it stays away.
        at: when it begins: after this part of its share of the events.
        overlaps: whether it begins even if others have not ended.
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
    publishers: Sequence[str],
    subscribers: Sequence[str],
    also: Collection[str] = (),
    without: Collection[str] = (),
) -> list[Fault]:
    """Return so many faults, the same for the same arguments.

    Args:
        seed: of the random numbers.
        faults: how many.
        publishers: the names of the processes that publish.
        subscribers: the names of those that handle.
        also: more kinds, one of each in every deck, that happen to the server.
        without: kinds to leave out.
    """
    chance = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < faults:
        deck = [*(kind for kind, number in _DECK.items() for _ in range(number) if kind not in without), *also]
        chance.shuffle(deck)
        kinds += deck
    targets = {"publisher": publishers, "subscriber": subscribers, "everybody": ("everybody",)}
    return [
        Fault(
            number=number,
            kind=kind,
            target=chance.choice(targets.get(kind.split()[-1], ("server",))),
            seconds=round(chance.triangular(_MIN_PAUSE, _MAX_PAUSE, _MODE), 2),
            at=round(chance.random(), 2),
            overlaps=chance.random() < _OVERLAPPING,
        )
        for number, kind in enumerate(kinds[:faults])
    ]
