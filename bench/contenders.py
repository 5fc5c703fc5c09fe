"""Who takes part: a *contender* does the work of a row, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from bench import work
from bench.clients.base import Client
from bench.run import Work


@dataclass(frozen=True)
class Contender:
    """Somebody who does the work of a row, in a process of its own.

    Attributes:
        name: for the table.
        start: returns the work, in that process: only there is another library imported.
        partner: the same for a second process, if the work needs one.
    """

    name: str
    start: Callable[[], Work]
    partner: Callable[[], Work] | None = None


_CLIENTS = {
    "jwt_events": ("ours", "Ours"),
    "redis-py": ("raw", "Raw"),
    "FastStream": ("faststream", "FastStream"),
    "coredis": ("coredis", "CoRedis"),
    "valkey-glide": ("glide", "Glide"),
    "broadcaster": ("broadcaster", "Broadcaster"),
    "taskiq-redis": ("taskiq", "Taskiq"),
}
EVERYBODY = tuple(_CLIENTS)
PACKAGES = (
    "redis", "hiredis", "pydantic", "uvloop", "faststream", "coredis", "valkey-glide", "taskiq", "taskiq-redis",
)  # fmt: skip

Shape = Callable[..., Work]


def on(transport: str, shape: Shape, *libraries: str) -> list[Contender]:
    """Let libraries do work of one shape on one transport."""

    def start(library: str) -> Work:
        module, name = _CLIENTS[library]
        client: Client = getattr(import_module(f"bench.clients.{module}"), name)(transport)
        return shape(client)

    return [Contender(f"{library} {transport}", partial(start, library)) for library in libraries]


def watched(transport: str, shape: Shape, suffix: str, options: Callable[[], Mapping[str, Any]]) -> Contender:
    """Let us do it, with options."""

    def start() -> Work:
        ours = import_module("bench.clients.ours").Ours
        return shape(ours(transport, suffix, options))

    return Contender(f"jwt_events {transport}{suffix}", start)


def alone_at(name: str, found: Work) -> Contender:
    """Let somebody do what only he does."""
    return Contender(name, lambda: found)


def across(row: str, transport: str, *libraries: str) -> list[Contender]:
    """Let libraries publish in one process and handle in another."""
    receivers = on(transport, partial(work.across, row=row, number=4_000), *libraries)
    senders = on(transport, partial(work.send, number=4_000), *libraries)
    return [Contender(one.name, one.start, other.start) for one, other in zip(receivers, senders, strict=True)]
