"""Entries that are fetched by single commands, not more of them than fit, and none larger than it is good for."""

from __future__ import annotations

from typing import Any

from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.batch_size import BatchSize
from jwt_events.transport._stream.entry import cut
from jwt_events.transport.base import Delivery


class EntryFetcher:
    """Fetches entries, and learns from their size how many to ask for the next time.

    Args:
        maximum: how many entries are asked for at most.
    """

    def __init__(self, maximum: int) -> None:
        self._size = BatchSize(maximum)
        self._received = 0  # bytes of the connection before
        self._missing = 0  # bytes of the entry that was fetched last that were left at the server

    @property
    def count(self) -> int:
        """How many entries to ask for."""
        return self._size.count

    def begin(self, connection: Connection) -> None:
        """Begin to count the bytes of a batch."""
        self._received, self._missing = connection.protocol.received, 0

    async def fetch(self, connection: Connection, command: Command, *, within: float) -> Any:
        """Return the reply to a command that returns at most `count` entries.

        Raises:
            TransportError: no reply, or an error reply.
        """
        request = connection.send([command], bounds=self._size.bounds())
        (reply,) = await connection.replies(request, within=within)
        if isinstance(reply, TransportError):
            raise reply
        self._missing = request.dropped
        return reply

    def fail(self, connection: Connection) -> None:
        """Ask for fewer if it failed because a reply was too large; see `BatchSize.fail`."""
        if connection.is_closed:
            self._size.fail(is_too_large=connection.was_cut_off)

    def finish(self, connection: Connection, deliveries: list[Delivery]) -> list[Delivery]:
        """Return the deliveries of a batch, with what is missing of them."""
        self._size.read(len(deliveries), connection.protocol.received - self._received)
        return cut(deliveries, self._missing)
