"""The competitors: each runs a workload of a row, in a worker process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from bench import workloads
from bench.clients.base import Client
from bench.run import Workload


@dataclass(frozen=True)
class Competitor:
    """A library, or a bare operation, that runs the workload of a row in a process of its own.

    Attributes:
        name: its name in the table.
        start: returns the workload; called in the worker process, the only one that imports the library.
        start_second: returns the workload of a second process, if the row needs one.
    """

    name: str
    start: Callable[[], Workload]
    start_second: Callable[[], Workload] | None = None


_CLIENTS = {
    "jwt_events": ("ours", "Ours"),
    "redis-py": ("raw", "Raw"),
    "FastStream": ("faststream", "FastStream"),
    "coredis": ("coredis", "CoRedis"),
    "valkey-glide": ("glide", "Glide"),
    "broadcaster": ("broadcaster", "Broadcaster"),
    "taskiq-redis": ("taskiq", "Taskiq"),
}
ALL_LIBRARIES = tuple(_CLIENTS)
PACKAGES = (
    "redis", "hiredis", "pydantic", "uvloop", "faststream", "coredis", "valkey-glide", "taskiq", "taskiq-redis",
)  # fmt: skip

WorkloadFactory = Callable[..., Workload]
"""Makes the workload of a client."""


def on(transport: str, factory: WorkloadFactory, *libraries: str) -> list[Competitor]:
    """Return competitors: libraries that run a workload on a transport."""

    def start(library: str) -> Workload:
        module, name = _CLIENTS[library]
        client: Client = getattr(import_module(f"bench.clients.{module}"), name)(transport)
        return factory(client)

    return [Competitor(f"{library} {transport}", partial(start, library)) for library in libraries]


def ours_with(
    transport: str, factory: WorkloadFactory, suffix: str, options: Callable[[], Mapping[str, Any]]
) -> Competitor:
    """Return the competitor jwt_events with options, which the suffix names in the table."""

    def start() -> Workload:
        ours = import_module("bench.clients.ours").Ours
        return factory(ours(transport, suffix, options))

    return Competitor(f"jwt_events {transport}{suffix}", start)


def single(name: str, workload: Workload) -> Competitor:
    """Return a competitor whose workload no other competitor shares."""
    return Competitor(name, lambda: workload)


def across(row: str, transport: str, *libraries: str) -> list[Competitor]:
    """Return competitors that publish in one process and handle in another."""
    receivers = on(transport, partial(workloads.across, row=row, count=4_000), *libraries)
    senders = on(transport, partial(workloads.send, count=4_000), *libraries)
    return [Competitor(one.name, one.start, other.start) for one, other in zip(receivers, senders, strict=True)]
