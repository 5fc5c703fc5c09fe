"""What the runner and the nemesis know of the servers of a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from bench.soak.plan import Fault

Inject: TypeAlias = Callable[[Fault], Awaitable[None]]


class Topology(Protocol):
    """The servers of a run."""

    @property
    def url(self) -> str:
        """The URL that leads to the primary."""

    @property
    def faults(self) -> Mapping[str, Inject]:
        """What can happen to the servers, by kind: each returns when its cause has ended and all servers are well."""

    def url_of(self, worker: str) -> str:
        """Return the URL that a worker connects to."""

    async def start(self) -> None:
        """Start the servers, or restart them."""

    async def kill(self) -> None:
        """Kill the servers."""

    async def aclose(self) -> None:
        """Stop the servers for good; idempotent."""

    def observe(self) -> None:
        """Note how much the servers have written. To be called often."""
