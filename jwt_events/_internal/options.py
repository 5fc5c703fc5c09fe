"""Validation of constructor options. Each function returns the value to keep or raises `InvalidOption`."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from jwt_events.errors import InvalidOption

MAX_NAME_LENGTH = 512
MAX_GROUP_NAME_LENGTH = 128


def seconds(option: str, value: float) -> float:
    """Accept a finite, positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidOption(option, f"must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= sys.float_info.max:  # neither NaN, nor an integer that no float can hold
        raise InvalidOption(option, "must be a positive, finite number of seconds")
    return float(value)


def optional_seconds(option: str, value: float | None) -> float | None:
    """Accept ``None`` or a finite, positive number of seconds."""
    return None if value is None else seconds(option, value)


def leeway(option: str, value: float) -> float:
    """Accept zero or a finite, positive number of seconds."""
    return 0.0 if value == 0 and not isinstance(value, bool) else seconds(option, value)


def part(option: str, value: float) -> float:
    """Accept a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidOption(option, "must be a number from 0 to 1")
    return float(value)


def count(option: str, value: int, *, maximum: int | None = None) -> int:
    """Accept a whole number from 1 to ``maximum``, which ``None`` leaves open."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(option, f"must be a whole number, not {type(value).__name__}")
    if value < 1 or (maximum is not None and value > maximum):
        raise InvalidOption(option, "must be at least 1" + ("" if maximum is None else f" and at most {maximum}"))
    return value


def count_or_none(option: str, value: int, *, maximum: int) -> int:
    """Accept a whole number from 0, for none, to ``maximum``."""
    return 0 if value == 0 and not isinstance(value, bool | float) else count(option, value, maximum=maximum)


def duration(option: str, value: timedelta) -> timedelta:
    """Accept a timedelta of at least a millisecond."""
    if not isinstance(value, timedelta):
        raise InvalidOption(option, f"must be a timedelta, not {type(value).__name__}")
    if value < timedelta(milliseconds=1):
        raise InvalidOption(option, "must be at least a millisecond")
    return value


def name(option: str, value: str, *, maximum: int = MAX_NAME_LENGTH) -> str:
    """Accept a name of a channel, a key, a group or a service: 1 to ``maximum`` printable characters, not all blank."""
    if not isinstance(value, str):
        raise InvalidOption(option, f"must be text, not {type(value).__name__}")
    if not value.strip() or len(value) > maximum or not value.isprintable():
        raise InvalidOption(option, f"must be 1 to {maximum} printable characters, not all blank")
    return value


def transport(owner: str, value: Any, opens: str) -> Any:
    """Accept a transport.

    Args:
        owner: the class whose first argument it is.
        value: what was passed.
        opens: the method that the owner needs.
    """
    if isinstance(value, type) or not callable(getattr(value, opens, None)):
        raise InvalidOption(
            "transport", f'must be one transport, not {type(value).__name__}: {owner}(RedisStream("redis://localhost"))'
        )
    return value


def flag(option: str, value: bool) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise InvalidOption(option, "must be True or False")
    return value
