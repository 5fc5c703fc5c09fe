"""A consumer of a group: what it can say to the server, and its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from jwt_events.errors import Closed
from jwt_events.transport._redis.protocol import Command

# Removing a consumer that holds something would lose that, so looking and removing must be one step.
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
    """A group and one of its consumers, as the commands of Redis see them."""

    key: str
    name: str
    consumer: str

    def create(self, position: str) -> Command:
        """Create the group, and the stream if there is none."""
        return ("XGROUP", "CREATE", self.key, self.name, position, "MKSTREAM")

    def read(self, *, count: int, block: float) -> Command:
        """Read what nobody was given yet."""
        options = ("COUNT", count, "BLOCK", max(1, int(block * 1000)))
        return ("XREADGROUP", "GROUP", self.name, self.consumer, *options, "STREAMS", self.key, ">")

    def claim(self, cursor: str, *, idle: float, count: int) -> Command:
        """Take over what others hold without a sign of life."""
        idle_ms = int(idle * 1000)
        return ("XAUTOCLAIM", self.key, self.name, self.consumer, idle_ms, cursor, "COUNT", count)

    def held(self, first: str, last: str, *, count: int) -> Command:
        """Ask what this consumer holds, and how often each was delivered; reading it would count as a delivery."""
        return ("XPENDING", self.key, self.name, first, last, count, self.consumer)

    def unfinished(self) -> Command:
        """Ask how many entries all consumers hold, and which is the oldest."""
        return ("XPENDING", self.key, self.name)

    def deliver_again(self, positions: Sequence[str]) -> Command:
        """Read entries again that this consumer holds."""
        return ("XCLAIM", self.key, self.name, self.consumer, 0, *positions)

    def renew(self, positions: Sequence[str]) -> Command:
        """Give a sign of life for what this consumer holds."""
        return ("XCLAIM", self.key, self.name, self.consumer, 0, *positions, "JUSTID")

    def acknowledge(self, positions: Sequence[str]) -> Command:
        """Say that entries are done with."""
        return ("XACK", self.key, self.name, *positions)

    def remove(self, consumer: str, *, idle: int) -> Command:
        """Remove a consumer that holds nothing and was idle for so many milliseconds."""
        return ("EVAL", _REMOVE_IF_EMPTY, 1, self.key, self.name, consumer, idle)


_names_in_use: set[tuple[str, ConsumerGroup]] = set()


@contextmanager
def reserve_consumer_name(address: str, group: ConsumerGroup, *, exactly: bool) -> Iterator[ConsumerGroup]:
    """Reserve the name of a consumer within this process: two that share one would take each other's events for theirs.

    Args:
        address: the server.
        group: the group and the name that is wanted.
        exactly: fail if it is in use, instead of numbering it.

    Raises:
        Closed: it is in use.
    """
    chosen, number = group, 1
    while (address, chosen) in _names_in_use:
        if exactly:
            raise Closed(f"the consumer {group.consumer!r} of group {group.name!r} is running already in this process")
        number += 1
        chosen = replace(group, consumer=f"{group.consumer}:{number}")
    _names_in_use.add((address, chosen))
    try:
        yield chosen
    finally:
        _names_in_use.discard((address, chosen))
