"""A consumer of a group: the commands that it sends, and the reservation of its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from jwt_events.errors import Closed
from jwt_events.transport._redis.protocol import Command

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
    """A group and one of its consumers; each method returns a command.

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

    def renew(self, positions: Sequence[str]) -> Command:
        """Renew the lease on entries that this consumer holds."""
        return ("XCLAIM", self.key, self.name, self.consumer, 0, *positions, "JUSTID")

    def acknowledge(self, positions: Sequence[str]) -> Command:
        """Acknowledge entries."""
        return ("XACK", self.key, self.name, *positions)

    def remove(self, consumer: str | bytes, *, idle: int) -> Command:
        """Remove a consumer that holds no entries and was idle for ``idle`` milliseconds."""
        return ("EVAL", _REMOVE_IF_EMPTY, 1, self.key, self.name, consumer, idle)


_reserved: set[tuple[str, ConsumerGroup]] = set()


@contextmanager
def reserve_consumer_name(address: str, group: ConsumerGroup, *, exactly: bool) -> Iterator[ConsumerGroup]:
    """Reserve a consumer name within this process: consumers with the same name would read each other's entries.

    Args:
        address: the server.
        group: the group and the preferred name.
        exactly: raise if the name is in use, instead of adding a number to it.

    Raises:
        Closed: the name is in use, and ``exactly`` is set.
    """
    reserved, number = group, 1
    while (address, reserved) in _reserved:
        if exactly:
            raise Closed(f"the consumer {group.consumer!r} of group {group.name!r} is running already in this process")
        number += 1
        reserved = replace(group, consumer=f"{group.consumer}:{number}")
    _reserved.add((address, reserved))
    try:
        yield reserved
    finally:
        _reserved.discard((address, reserved))
