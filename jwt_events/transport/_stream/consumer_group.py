"""A consumer of a group: the commands that it sends, and the reservation of its name."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jwt_events._internal.options import MAX_GROUP_NAME_LENGTH
from jwt_events.errors import Closed
from jwt_events.transport._redis.commands import Command

# How many leases one command renews.
_MAX_RENEWED_AT_ONCE = 1_000

# Removing a consumer that holds entries would lose them, so the check and the removal must be one step.
_REMOVE_IF_EMPTY = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local is = {}
    for i = 1, #consumer, 2 do is[consumer[i]] = consumer[i + 1] end
    if is.name == ARGV[2] and is.pending == 0 and is.idle >= tonumber(ARGV[3]) then
        return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    end
end
return -1
"""


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A group and one of its consumers; each method returns a command, or several.

    Attributes:
        key: the stream.
        name: the name of the group.
        consumer: the name of the consumer.
    """

    key: str
    name: str
    consumer: str

    def create(self, position: str) -> Command:
        """Create the group, and the stream if there is none."""
        return ("XGROUP", "CREATE", self.key, self.name, position, "MKSTREAM")

    def join(self) -> Command:
        """Make the consumer known; others count alone until it is, and Redis 7.0 knows it only when it has read.

        It reads nothing: what this consumer holds of entries at the end of all positions, in the year 584,000,000.
        """
        return ("XREADGROUP", "GROUP", self.name, self.consumer, "STREAMS", self.key, f"{2**64 - 1}-0")

    def read(self, *, count: int, block: float) -> Command:
        """Read entries that were not delivered to any consumer yet."""
        options = ("COUNT", count, "BLOCK", max(1, int(block * 1000)))
        return ("XREADGROUP", "GROUP", self.name, self.consumer, *options, "STREAMS", self.key, ">")

    def claim(self, cursor: str, *, idle: float, count: int) -> Command:
        """Claim entries that other consumers hold and have not renewed for ``idle`` seconds."""
        idle_ms = int(idle * 1000)
        return ("XAUTOCLAIM", self.key, self.name, self.consumer, idle_ms, cursor, "COUNT", count)

    def list_pending(self, first: str, last: str, *, count: int) -> Command:
        """List entries that this consumer holds and how often each was delivered, without counting as a delivery."""
        return ("XPENDING", self.key, self.name, first, last, count, self.consumer)

    def summarize_pending(self) -> Command:
        """Return how many entries all consumers hold, and the oldest of them."""
        return ("XPENDING", self.key, self.name)

    def deliver_again(self, positions: Sequence[str]) -> Command:
        """Read again entries that this consumer holds."""
        return ("XCLAIM", self.key, self.name, self.consumer, 0, *positions)

    def renew(self, positions: Sequence[str]) -> list[Command]:
        """Renew the leases on entries that this consumer holds."""
        claim, step = ("XCLAIM", self.key, self.name, self.consumer, 0), _MAX_RENEWED_AT_ONCE
        return [(*claim, *positions[i : i + step], "JUSTID") for i in range(0, len(positions), step)]

    def acknowledge(self, positions: Sequence[str]) -> Command:
        """Acknowledge entries."""
        return ("XACK", self.key, self.name, *positions)

    def remove(self, consumer: str | bytes, *, idle: int) -> Command:
        """Remove a consumer that holds no entries and was idle for ``idle`` milliseconds."""
        return ("EVAL", _REMOVE_IF_EMPTY, 1, self.key, self.name, consumer, idle)


# The consumers of explicit names that this process runs, with the process: a child begins with a copy of its parent's.
_reserved: set[tuple[int, str, int, ConsumerGroup]] = set()


def new_consumer_name() -> str:
    """Return a name that no other consumer has: of this host and this process, for people, and of chance.

    Host and process are not enough: containers may share the name of their host, and each have a process 1; and a
    process may open several receivers. The chance is the system's, as forked processes repeat that of `random`.
    """
    suffix = f":{os.getpid()}:{secrets.token_hex(6)}"
    return socket.gethostname()[: MAX_GROUP_NAME_LENGTH - len(suffix)] + suffix


@contextmanager
def reserve_consumer_name(address: str, database: int, group: ConsumerGroup) -> Iterator[None]:
    """Reserve a consumer name within this process: consumers with the same name would read each other's entries.

    Args:
        address: the server.
        database: the number of the database.
        group: the group, and the name.

    Raises:
        Closed: the name is in use.
    """
    reservation = (os.getpid(), address, database, group)
    if reservation in _reserved:
        raise Closed(f"the consumer {group.consumer!r} of group {group.name!r} is running already in this process")
    _reserved.add(reservation)
    try:
        yield
    finally:
        _reserved.discard(reservation)
