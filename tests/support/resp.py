"""Replies of the Redis protocol as trees, and replies of another shape made from them. Pure, but for chance.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Node:
    """A reply, or a part of one.

    Attributes:
        kind: the first byte on the wire: ``+``, ``-``, ``:``, ``$``, ``*``, ``>`` or ``%``.
        content: the text or number; ``None`` for what has items.
        items: what is in an array, a pushed message, or a map, which has names and values in turn.
    """

    kind: bytes
    content: bytes | None = None
    items: tuple[Node, ...] = field(default=())

    @property
    def has_items(self) -> bool:
        """Whether it is an array, a pushed message or a map, and not nil."""
        return self.kind in _WITH_ITEMS and self.content is None


_WITH_ITEMS = {b"*": 1, b">": 1, b"%": 2}
"""How many items each counts as one."""

NIL = Node(b"$", b"-1")

# Of no shape that a part of a reply to a command of this library has, at that place.
_STRANGE = (
    b":-1\r\n",
    b":0\r\n",
    b"$0\r\n\r\n",
    b"#f\r\n",
    b"#t\r\n",
    b",nan\r\n",
    b"*0\r\n",
    b"*1\r\n*0\r\n",
    b"*2\r\n$1\r\nk\r\n:0\r\n",
    b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"%1\r\n*0\r\n:1\r\n",
    b"~1\r\n:1\r\n",
    b">2\r\n+message\r\n+x\r\n",
    b"+QUEUED\r\n",
    b"+OK\r\n",
    b"$3\r\n\xff-\xfe\r\n",
    b"$2\r\n7-\r\n",
    b"$22\r\n99999999999999999999-9\r\n",
    b"*4294967295\r\n",
    b"nonsense\r\n",
)

_ERRORS = (b"-ERR no\r\n", b"-\r\n", b"-\xff\xfe\r\n", b"-NOPERM no\r\n", b"-LOADING wait\r\n", b"-WRONGTYPE no\r\n")


def parse(data: bytes) -> list[Node] | None:
    """Parse replies; ``None`` if the last one is cut off."""
    nodes, at = [], 0
    try:
        while at < len(data):
            node, at = _parse_one(data, at)
            nodes.append(node)
    except (ValueError, IndexError):
        return None
    return nodes


def _parse_one(data: bytes, at: int) -> tuple[Node, int]:
    kind, end = data[at : at + 1], data.index(b"\r\n", at)
    content, at = data[at + 1 : end], end + 2
    if kind in b"$*" and content == b"-1":
        return Node(kind, content), at
    if kind == b"$":
        end = at + int(content)
        if len(data) < end + 2:
            raise ValueError
        return Node(kind, data[at:end]), end + 2
    if kind in _WITH_ITEMS:
        items = []
        for _ in range(int(content) * _WITH_ITEMS[kind]):
            item, at = _parse_one(data, at)
            items.append(item)
        return Node(kind, None, tuple(items)), at
    return Node(kind, content), at


def encode(node: Node) -> bytes:
    """Encode a reply."""
    if node.has_items:
        count = len(node.items) // _WITH_ITEMS[node.kind]
        return node.kind + b"%d\r\n" % count + b"".join(map(encode, node.items))
    content = node.content or b""
    if node.kind == b"$" and node != NIL:
        return b"$%d\r\n%s\r\n" % (len(content), content)
    if node.kind == b"?":  # as it is
        return content
    return node.kind + content + b"\r\n"


class Mutator:
    """Gives some of the replies another shape.

    Args:
        seed: which, and which shape.
        share: of the replies.

    Attributes:
        count: how many replies were changed so far.
        is_on: whether it changes any.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._random = random.Random(seed)
        self._share = share
        self.count = 0
        self.is_on = True

    def __call__(self, data: bytes) -> bytes:
        """Return what arrives in the place of these replies."""
        nodes = parse(data) if self.is_on else None
        return data if nodes is None else b"".join(self._mutate(node) for node in nodes)

    def _mutate(self, reply: Node) -> bytes:
        if self._random.random() >= self._share:
            return encode(reply)
        self.count += 1
        if self._random.random() < 0.15:
            return self._random.choice(_ERRORS)
        return encode(self._reshape(reply))

    def _reshape(self, node: Node, *, is_whole: bool = True) -> Node:
        """Change this node or one below it, in a way that no server could have meant."""
        if node.items and self._random.random() < 0.8:
            place = self._random.randrange(len(node.items))
            before, item, after = node.items[:place], node.items[place], node.items[place + 1 :]
            # A row less or more is no other shape, unlike a part of a row.
            is_row = not all(part.has_items for part in node.items)
            change = self._random.randrange(3) if is_row and node.kind != b"%" else 2
            changed = (), (item, item), (self._reshape(item, is_whole=False),)
            return replace(node, items=(*before, *changed[change], *after))
        if not is_whole and self._random.random() < 0.2:
            return NIL
        likely = {b":": (b":0\r\n",), b"*": (b"*0\r\n",)}.get(node.kind, ())  # a server could have meant these
        return Node(b"?", self._random.choice([other for other in _STRANGE if other not in likely]))
