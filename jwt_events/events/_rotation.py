"""What a key rotation says about its keys, and what can be misunderstood in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jwt_events.events._models import KeyRotated

_NAMED_TWICE = (
    "is the same key as key_id: name the new key as key_id and the one that it replaces as previous_key_id; or leave"
    " previous_key_id out, if it replaces none"
)
_NOTHING_TO_RETIRE = (
    "is about previous_key_id, which is missing: name the key to retire as previous_key_id, and its successor as"
    " key_id; or leave retire_at out, if no key is to retire"
)
_WHICH_LEAKED = (
    "is about key_id, but {first} says that key_id is a new key: name the key that leaked as key_id, without {all};"
    " and announce its successor by an event of its own, without compromised"
)


def ambiguity(field: str, value: object, others: Mapping[str, Any]) -> str | None:
    """Return what can be misunderstood about a field, and the ways to say it right; ``None`` if it is clear.

    Args:
        field: ``previous_key_id``, ``retire_at`` or ``compromised``.
        value: its value.
        others: the valid fields before it.
    """
    if not value:
        return None
    if field == "previous_key_id":
        return _NAMED_TWICE if value == others.get("key_id") else None
    if field == "retire_at":
        is_alone = others.get("previous_key_id", "") is None  # an invalid one is reported by itself
        return _NOTHING_TO_RETIRE if is_alone else None
    rotation = [name for name in ("previous_key_id", "active_from") if others.get(name) is not None]
    return _WHICH_LEAKED.format(first=rotation[0], all=" and ".join(rotation)) if rotation else None


def compromised_keys(event: KeyRotated) -> tuple[str, ...]:
    """Return the keys that count as leaked: of an event that names two, both."""
    if not event.compromised:
        return ()
    return tuple(dict.fromkeys(key for key in (event.key_id, event.previous_key_id) if key is not None))


def retired_key(event: KeyRotated) -> str | None:
    """Return the key that is withdrawn at ``retire_at``: of an event that names one only, that one."""
    return None if event.retire_at is None else event.previous_key_id or event.key_id
