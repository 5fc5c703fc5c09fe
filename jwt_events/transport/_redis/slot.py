"""Where a cluster keeps a key: its slot, which follows from the hash tag in its name. Pure.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ "Hash tags"
"""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16_384
"""How many slots a cluster has."""


def hash_tag(key: str) -> str | None:
    """Return the part of a key that decides its slot: between the first ``{`` and the next ``}``.

    ``None`` if there is no such part, or an empty one: then all of the key decides.
    """
    _, opens, rest = key.partition("{")
    tag, closes, _ = rest.partition("}")
    return tag if opens and closes and tag else None


def slot_of(key: str) -> int:
    """Return the slot of a key: the CRC16 (XMODEM) of its hash tag, or else of all of it."""
    tag = hash_tag(key)
    return crc_hqx((key if tag is None else tag).encode(), 0) % SLOTS
