"""Positions in a stream, as text and in their order. Pure."""

from __future__ import annotations

import re
from typing import Final

OLDEST: Final = "0-0"
"""The position before every entry."""

_POSITION: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def is_position(text: str) -> bool:
    """Whether ``text`` is the position of a stream entry: milliseconds, a hyphen, a sequence number."""
    return _POSITION.fullmatch(text) is not None and max(sort_key(text)) < 2**64


def sort_key(position: str) -> tuple[int, int]:
    """Return a key by which positions sort."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)
