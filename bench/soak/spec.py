"""What a process of a run does, as it is told on its standard input."""

from __future__ import annotations

from dataclasses import dataclass, field

KEY = "{soak}"  # in a cluster, all keys of the stream are in its slot
GROUP = "soak"

MAX_STALENESS = 2.0
"""Seconds for which a list lets tokens in after it was last proven current."""

POLL_TIMEOUT = MAX_STALENESS / 4
"""Seconds between the proofs of a list on which nothing happens."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a process does.

    Attributes:
        role: ``publisher``, ``subscriber``, ``list`` or ``starter``.
        name: the name of the process; in a group, also of its consumer.
        incarnation: how often the process was restarted.
        directory: where histories and checkpoints are.
        url: the server.
        transport: ``stream`` or ``group``.
        rate: events per second that a publisher sends, at most.
        replicas: how many replicas must have an event before it is accepted.
        retention: seconds for which publishers keep events in the stream; ``None`` for the default.
        verbose: whether to log what the library does.
    """

    role: str
    name: str
    incarnation: int
    directory: str
    url: str = field(repr=False)
    transport: str
    rate: float
    replicas: int = 0
    retention: float | None = None
    verbose: bool = False
