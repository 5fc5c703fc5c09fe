"""Which node of a cluster owns which slots, as one of the nodes says. Pure: no I/O, no clock.

Sources: https://redis.io/docs/latest/commands/cluster-slots/,
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ "Hash tags"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from jwt_events.transport._redis.survey import Address

Remap = Callable[[Address], Address]
"""Returns the address at which a node can be reached, given the one that it announces."""


def hash_tag(key: str) -> str | None:
    """Return the part of a key that decides its slot: between the first ``{`` and the next ``}``.

    ``None`` if there is no such part, or an empty one: then all of the key decides.
    """
    _, opens, rest = key.partition("{")
    tag, closes, _ = rest.partition("}")
    return tag if opens and closes and tag else None


def slot_of(key: str) -> int:
    """Return the slot of a key, or of its hash tag."""
    return key_slot(key.encode())


def _host(node: Sequence[Any]) -> str:
    """Return the host that a node is to be reached at; empty for that of the one that was asked.

    A node that has to have a hostname, and has none, is called ``?``; its address is told beside that.
    """
    host, others = node[0] or b"", node[3] if len(node) > 3 else ()
    if host == b"?":
        host = dict(zip(others[::2], others[1::2], strict=True)).get(b"ip", b"")
    return bytes(host).decode()


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Where slots are.

    Attributes:
        ranges: the first and last slot of each range, and the nodes that have it, its owner first.
        ids: the ids of the nodes that have slots; a node keeps its own, wherever it runs.
    """

    ranges: Sequence[tuple[int, int, Sequence[Address]]]
    ids: frozenset[bytes] = frozenset()

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
            found = _host(node) or asked[0], int(node[1])
            return found if remap is None else remap(found)

        ranges = [(int(first), int(last), [place(node) for node in nodes]) for first, last, *nodes in reply]
        return cls(ranges, frozenset(node[2] for _, _, *nodes in reply for node in nodes if len(node) > 2))

    def may_follow(self, earlier: SlotMap) -> bool:
        """Whether this can be a later map of the same cluster: it has half of the nodes that were before, or more."""
        return 2 * len(self.ids & earlier.ids) >= len(earlier.ids)

    def owner_of(self, slot: int) -> Address | None:
        """Return where the owner of a slot is; ``None`` if it has none."""
        return next((nodes[0] for first, last, nodes in self.ranges if first <= slot <= last), None)

    def replicas_of(self, slot: int) -> Sequence[Address]:
        """Return where the replicas are that have a slot."""
        return next((nodes[1:] for first, last, nodes in self.ranges if first <= slot <= last), [])

    @property
    def nodes(self) -> Sequence[Address]:
        """Where all nodes are, owners first."""
        owners = [nodes[0] for _, _, nodes in self.ranges]
        return list(dict.fromkeys([*owners, *(node for _, _, nodes in self.ranges for node in nodes)]))
