"""Sends payloads: what the two Redis transports have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jwt_events.errors import TransportError
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport.base import Sent


class RedisSender:
    """Sends payloads, each as one command; a `Sender`.

    Args:
        pipeline: runs the commands.
        command: turns a payload into a command.
        sent: reads the server's answer to it.
    """

    def __init__(
        self, pipeline: Multiplexer, *, command: Callable[[bytes], Command], sent: Callable[[Any], Sent]
    ) -> None:
        self._pipeline = pipeline
        self._command = command
        self._sent = sent

    def send(self, payloads: Sequence[bytes], *, within: float) -> Awaitable[Sequence[Sent | TransportError]]:
        """Send payloads in order; see `Sender.send`."""
        return self._pipeline.run(list(map(self._command, payloads)), within=within, reading=self._sent)
