"""Positions in a stream, as text and in their order. Pure."""

from __future__ import annotations

import re
from typing import Final

OLDEST: Final = "0-0"
"""The position before every entry."""

_POSITION: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_REGIONAL: Final = re.compile(r"(?:([A-Za-z0-9._-]+):)?([0-9]{1,20})-([0-9]{1,20})")


def is_position(text: str) -> bool:
    """Whether ``text`` is the position of a stream entry: milliseconds, a hyphen, a sequence number."""
    return _POSITION.fullmatch(text) is not None and max(sort_key(text)) < 2**64


def parse_regional(text: str) -> tuple[str, tuple[int, int]] | None:
    """Return the region and the `sort_key` of a position such as ``eu:1700000000000-0``; ``None`` if it is none.

    The region of a position without one is empty.
    """
    if (found := _REGIONAL.fullmatch(text)) is None:
        return None
    region, milliseconds, sequence = found.groups()
    key = int(milliseconds), int(sequence)
    return (region or "", key) if max(key) < 2**64 else None


def sort_key(position: str) -> tuple[int, int]:
    """Return a key by which positions sort."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)
