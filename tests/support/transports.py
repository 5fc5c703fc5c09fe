"""Every transport, as a mixin that tells a test class how to make it."""

from __future__ import annotations

from typing import Literal, Protocol

import pytest

from jwt_events import MemoryTransport, RedisPubSub, RedisStream, Transport

Start = Literal["new", "all"]


class MakeTransport(Protocol):
    """Makes a transport whose destination is the test's own."""

    def __call__(self, name: str = "", *, start: Start = "new") -> Transport:
        """Describe the transport.

        Args:
            name: appended to the test's own name: another one is another channel or key.
            start: where a receiver begins, on a transport that remembers.
        """
        ...


class OnPubSub:
    """Run the tests of a class on `RedisPubSub`."""

    @pytest.fixture
    def make(self, url: str, key: str) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return RedisPubSub(url, key + name)

        return make


class OnStream:
    """Run the tests of a class on `RedisStream`."""

    @pytest.fixture
    def make(self, url: str, key: str) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return RedisStream(url, key + name, start=start)

        return make


class OnMemory:
    """Run the tests of a class on `MemoryTransport`."""

    @pytest.fixture
    def make(self) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> Transport:
            return MemoryTransport(start=start)

        return make
