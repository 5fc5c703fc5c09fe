"""Sends payloads: what the two Redis transports have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jwt_events.errors import TransportError
from jwt_events.transport.base import Sent
from jwt_events.transport.pipeline import Pipeline, unexpected
from jwt_events.transport.wire import Command


class RedisSender:
    """Sends payloads, each as one command; a `Sender`.

    Args:
        pipeline: runs the commands.
        command: turns a payload into a command.
        sent: reads the server's answer to it.
    """

    def __init__(self, pipeline: Pipeline, *, command: Callable[[bytes], Command], sent: Callable[[Any], Sent]) -> None:
        self._pipeline = pipeline
        self._command = command
        self._sent = sent

    async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent | TransportError]:
        """Send payloads in order; see `Sender.send`."""
        answers = await self._pipeline.run([self._command(payload) for payload in payloads], within=within)
        return [self._read(answer) for answer in answers]

    def _read(self, answer: Any) -> Sent | TransportError:
        try:
            return self._sent(answer)
        except Exception as error:  # noqa: BLE001 - the server, or what stands for it, may answer anything
            if isinstance(answer, TransportError):
                return answer
            return unexpected(error, self._pipeline.address, maybe_done=True)
