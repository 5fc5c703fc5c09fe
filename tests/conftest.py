"""Fixtures: servers, and checks that a test leaves no task, connection, key or process behind.

================  =========================================================================================
``server``        a running server, one for each kind: ``server.url``, ``server.kind``
``url``           its URL
``key``           name of this test's stream or channel; keys with this prefix are deleted afterwards
``client``        a ``redis.asyncio.Redis`` for it
``own_server``    ``async with own_server(**options) as server``: an `EmbeddedServer` to freeze or kill
``cluster``       a running `Cluster`, shared: no test may stop, freeze or reshard it
``own_cluster``   ``async with own_cluster(**options) as cluster``: a `Cluster` for this test alone
================  =========================================================================================

Environment variables: ``JWT_EVENTS_TEST_URL`` adds a server, or with blanks in between one for each worker,
``JWT_EVENTS_TEST_LOOP=uvloop`` runs all tests on uvloop, ``JWT_EVENTS_TEST_TIMEOUT_FACTOR`` multiplies all deadlines.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio
import uvloop
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis import reconnecting
from tests.support.cluster import Cluster
from tests.support.cluster import cluster as run_cluster
from tests.support.processes import children
from tests.support.servers import KINDS, OWN_KINDS, Server, embedded, shared, shared_cluster
from tests.support.waiting import block_until, scaled, wait_until

pytest_plugins = ["jwt_events.testing.plugin"]

# The duration of an example depends on the machine, not on the library.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A machine on which tests need more time needs more to open a connection, too.
reconnecting.OPEN_WITHIN += scaled(1.0)

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on the loop that JWT_EVENTS_TEST_LOOP names."""
    name = os.environ.get("JWT_EVENTS_TEST_LOOP", "asyncio")
    if name not in _LOOPS:
        raise pytest.UsageError(f"JWT_EVENTS_TEST_LOOP must be one of {', '.join(_LOOPS)}")
    return {name: _LOOPS[name]}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while tests are found, and leave what was found out of all later collections: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def _servers() -> Iterator[Callable[[str], Server]]:
    """Start each server on first use, and stop all of them at the end of the session."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def get(kind: str) -> Server:
            if kind not in running:
                running[kind] = stack.enter_context(shared(kind))
            return running[kind]

        yield get


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, _servers: Callable[[str], Server]) -> Server:
    """A running server, shared with other tests."""
    return _servers(request.param)


@pytest.fixture
def url(server: Server) -> str:
    """URL of the server."""
    return server.url


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a stream or channel that no other test uses."""
    name = "test:" + hashlib.blake2s(request.node.nodeid.encode(), digest_size=8).hexdigest()
    shared_server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    if shared_server is not None:
        shared_server.delete(name)  # an external server may have keys of an interrupted run
    yield name
    if shared_server is not None:
        shared_server.delete(name)


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server, closed after the test."""
    async with redis.asyncio.Redis.from_url(url) as client:
        yield client


@pytest.fixture(params=OWN_KINDS)
def own_server(request: pytest.FixtureRequest) -> Callable[..., EmbeddedServer]:
    """Factory of servers for this test alone: enter the result with ``async with``."""
    return partial(embedded, request.param)


@pytest.fixture(scope="session")
def _shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with shared_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def cluster(_shared_cluster: Cluster, key: str) -> AsyncIterator[Cluster]:
    """A running cluster, shared with other tests. Keys that begin with `key` are deleted afterwards."""
    before = {one["addr"] for one in await _shared_cluster.connections()}
    yield _shared_cluster
    await _shared_cluster.delete(key)

    async def none_left() -> bool:
        return {one["addr"] for one in await _shared_cluster.connections()} <= before

    await wait_until(none_left, within=10.0, what="the closing of connections to the cluster")


@pytest.fixture
def own_cluster(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Cluster]]:
    """Factory of clusters for this test alone: enter the result with ``async with``."""
    return partial(run_cluster, partial(embedded, "valkey"), tmp_path)


# These fixtures check every test. They are set up before the test's own fixtures, so they run last.


@pytest.fixture(autouse=True)
def _no_child_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if "server" in request.fixturenames:
        request.getfixturevalue("server")  # starting it creates a child process that stays
    before = children()
    yield
    block_until(
        lambda: children() <= before,
        within=10.0,
        what=lambda: f"the end of the child processes {children() - before}",
    )


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, _no_child_left: None) -> None:
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_no_task_left")
    if "server" in request.fixturenames:
        request.getfixturevalue("_no_key_left")
        request.getfixturevalue("_no_connection_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    own = asyncio.current_task()
    await wait_until(
        lambda: asyncio.all_tasks() <= {own},
        within=10.0,
        what=lambda: f"the end of the tasks {asyncio.all_tasks() - {own}}",
    )


@pytest.fixture
async def _no_connection_left(server: Server) -> AsyncIterator[None]:
    before = server.connections().keys()
    yield
    await wait_until(
        lambda: server.connections().keys() <= before,
        within=10.0,
        what=lambda: f"the closing of {[c for name, c in server.connections().items() if name not in before]}",
    )


@pytest.fixture
def _no_key_left(server: Server) -> Iterator[None]:
    before = server.number_of_keys()
    yield
    assert server.number_of_keys() <= before, f"keys are left: {server.keys()}"


@pytest.fixture(autouse=True)
def _no_blocking_call(request: pytest.FixtureRequest, _nothing_left: None) -> Iterator[None]:
    """Fail a test in which the library blocks the event loop."""
    if not pytest_asyncio.is_async_test(request.node):
        yield
        return
    _blockbuster.activate()
    yield
    _blockbuster.deactivate()


def _watch() -> BlockBuster:
    watch = BlockBuster("jwt_events")
    for function in watch.functions.values():
        # Small files that are written and read when a development server starts and stops.
        function.can_block_in("jwt_events/embedded.py", {"__init__", "_private_directory", "_last_lines"})
        # The predicate belongs to the test.
        function.can_block_in("jwt_events/testing/_waiting.py", {"eventually"})
        # redis-py reads its own version for each connection, to send it to the server.
        function.can_block_in("redis/utils.py", {"get_lib_version"})
    return watch


_blockbuster = _watch()
