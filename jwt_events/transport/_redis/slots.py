"""Which node of a cluster owns which slots, as one of the nodes says. Pure: no I/O, no clock.

Source: https://redis.io/docs/latest/commands/cluster-slots/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from jwt_events.transport._redis.survey import Address

Remap = Callable[[Address], Address]
"""Returns the address at which a node can be reached, given the one that it announces."""


def slot_of(key: str) -> int:
    """Return the slot of a key, or of its hash tag."""
    return key_slot(key.encode())


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Where slots are.

    Attributes:
        ranges: the first and last slot of each range, and the nodes that have it, its owner first.
    """

    ranges: Sequence[tuple[int, int, Sequence[Address]]]

    @classmethod
    def parse(cls, reply: Any, asked: Address, remap: Remap | None = None) -> SlotMap:
        """Parse the reply to CLUSTER SLOTS.

        Args:
            reply: the reply.
            asked: where the node is that sent it: it may leave out its host, if that is the one to be used.
            remap: applied to each address; ``None`` to use them as they are.

        Raises:
            Exception: of any kind, if it is no such reply.
        """

        def place(node: Sequence[Any]) -> Address:
            host, port = node[:2]
            found = (host.decode() if host and host != b"?" else asked[0]), int(port)
            return found if remap is None else remap(found)

        return cls([(int(first), int(last), [place(node) for node in nodes]) for first, last, *nodes in reply])

    def owner_of(self, slot: int) -> Address | None:
        """Return where the owner of a slot is; ``None`` if it has none."""
        return next((nodes[0] for first, last, nodes in self.ranges if first <= slot <= last), None)

    @property
    def nodes(self) -> Sequence[Address]:
        """Where all nodes are, owners first."""
        owners = [nodes[0] for _, _, nodes in self.ranges]
        return list(dict.fromkeys([*owners, *(node for _, _, nodes in self.ranges for node in nodes)]))
