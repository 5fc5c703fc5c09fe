"""A mixin for each transport, with a fixture that makes it for a test class."""

from __future__ import annotations

from typing import Literal

import pytest

from jwt_events import MemoryTransport, RedisPubSub, RedisStream, Transport
from jwt_events.testing import FaultyTransport
from jwt_events.testing.conformance import MakeTransport
from tests.support.cluster import Cluster

Start = Literal["new", "all"]


class OnPubSub:
    """Run the tests of a class on `RedisPubSub`."""

    @pytest.fixture
    def make_transport(self, url: str, key: str) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return RedisPubSub(url, key + name)

        return make


class OnStream:
    """Run the tests of a class on `RedisStream`."""

    @pytest.fixture
    def make_transport(self, url: str, key: str) -> MakeTransport:
        """Makes the transport."""
        return _streams(url, key)


class OnGroup:
    """Run the tests of a class on a group of a `RedisStream`."""

    @pytest.fixture
    def make_transport(self, url: str, key: str) -> MakeTransport:
        """Makes the transport."""
        return _streams(url, key, group="g")


class OnCluster:
    """Run the tests of a class on `RedisStream` in a cluster, with keys that have no hash tag."""

    @pytest.fixture
    def make_transport(self, cluster: Cluster, key: str) -> MakeTransport:
        """Makes the transport."""
        return _streams(cluster.url, key)


class OnClusterGroup:
    """Run the tests of a class on a group of a `RedisStream` in a cluster, with keys that have no hash tag."""

    @pytest.fixture
    def make_transport(self, cluster: Cluster, key: str) -> MakeTransport:
        """Makes the transport."""
        return _streams(cluster.url, key, group="g")


def _streams(url: str, key: str, *, group: str | None = None) -> MakeTransport:
    def make(name: str = "", *, start: Start = "new") -> Transport:
        return RedisStream(url, key + name, group=group, start=start)

    return make


class OnMemory:
    """Run the tests of a class on `MemoryTransport`."""

    @pytest.fixture
    def make_transport(self) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return MemoryTransport(start=start)

        return make


class OnFaulty:
    """Run the tests of a class on a `FaultyTransport` without faults, durable and not."""

    @pytest.fixture(params=[False, True], ids=["durable", "live"])
    def make_transport(self, request: pytest.FixtureRequest) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return FaultyTransport(MemoryTransport(start=start), is_live=request.param)

        return make
