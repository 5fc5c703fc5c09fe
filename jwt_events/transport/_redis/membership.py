"""What a node says of its place in a cluster. Pure: no I/O, no clock.

A node that is cut off from the others goes on for a while: it says that the cluster is down only after its node
timeout, and by then the others may have replaced it. They may do so when a majority of the primaries has not heard from
it for that timeout. So a node counts as the owner as long as a majority of the primaries, itself included, replies to
its pings. It sends one to each of them at least every half of the timeout; so a node that is cut off at some moment is
in doubt after a half of the timeout, and `MAX_PING`, and can be replaced after all of it, not before.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#failure-detection
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.slots import slot_of

MEMBERSHIP: Sequence[Command] = (("CLUSTER", "INFO"), ("CLUSTER", "NODES"), ("TIME",))
"""What a node is asked; the last because its clock counts how long a ping has been waiting for its reply."""

MAX_PING = 0.5
"""Seconds without a reply to a ping after which a primary is not in contact."""

_RIGHTS = "a cluster needs the rights +cluster|info, +cluster|nodes and +time"
_OUT_OF_REACH = frozenset({"fail", "fail?", "handshake", "noaddr"})


@dataclass(frozen=True, slots=True)
class Membership:
    """What a node says of its cluster.

    Attributes:
        is_up: whether it says that the cluster is up.
        is_owner: whether it owns the slot.
        size: how many primaries have slots.
        has_slots: whether the node owns any slot.
        in_contact: how many of them are in contact with it, itself included.
    """

    is_up: bool
    is_owner: bool
    size: int
    in_contact: int
    has_slots: bool = True

    @property
    def majority(self) -> int:
        """How many primaries are more than half."""
        return self.size // 2 + 1

    @property
    def has_handed_over(self) -> bool:
        """Whether the node gave the slot away: it was not replaced, as that would have taken all of its slots."""
        return self.is_up and not self.is_owner and self.has_slots and self.in_contact >= self.majority

    @classmethod
    def parse(cls, replies: Sequence[Any], key: str) -> Membership:
        """Parse the replies to `MEMBERSHIP`.

        Args:
            replies: the replies.
            key: the key whose owner the node may be.

        Raises:
            TransportError: no replies, or error replies; the message names the rights that are missing.
        """
        for reply in replies:
            if isinstance(reply, ServerRefused) and not reply.retryable:
                raise ServerRefused(f"{reply}; {_RIGHTS}", code=reply.code)
            if isinstance(reply, TransportError):
                raise reply
        try:
            info, nodes, (seconds, microseconds) = replies
            now = int(seconds) * 1000 + int(microseconds) // 1000
            members = [_Member.parse(line, now) for line in nodes.decode(errors="replace").splitlines() if line]
            primaries = [member for member in members if member.is_primary and member.ranges]
            slot = slot_of(key)
            return cls(
                is_up=b"cluster_state:ok" in info.split(),
                is_owner=any(member.is_self and member.has(slot) for member in primaries),
                size=len(primaries),
                has_slots=any(member.is_self for member in primaries),
                in_contact=sum(member.is_self or member.is_in_contact for member in primaries),
            )
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ConnectionFailed("a node sent a reply that is not that of a node of a cluster") from None


@dataclass(frozen=True, slots=True)
class _Member:
    is_self: bool
    is_primary: bool
    is_in_contact: bool
    ranges: Sequence[Sequence[int]]

    @classmethod
    def parse(cls, line: str, now: int) -> _Member:
        """Parse a line of CLUSTER NODES."""
        _, _, words, _, pinged, _, _, state, *slots = line.split()
        flags = set(words.split(","))
        is_waiting = int(pinged) != 0 and now - int(pinged) > MAX_PING * 1000
        return cls(
            is_self="myself" in flags,
            is_primary="master" in flags,
            is_in_contact=state == "connected" and not is_waiting and flags.isdisjoint(_OUT_OF_REACH),
            ranges=[[int(slot) for slot in found.split("-")] for found in slots if not found.startswith("[")],
        )

    def has(self, slot: int) -> bool:
        return any(found[0] <= slot <= found[-1] for found in self.ranges)
