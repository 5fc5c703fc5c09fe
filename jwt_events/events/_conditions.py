"""Conditions of a revocation about any claims: what they may say, and how the claims of a token are compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

from jwt_events.events._fields import MAX_IDENTIFIER_LENGTH, check_scalar

MAX_CONDITIONS = 8
_MAX_DEPTH = 3

ComparedValue = str | int | float | tuple[bool]
"""A value as it is compared: ``true`` is not 1, as Python has it, but 1 is 1.0, as JSON has it."""


_NO_VALUES: Mapping[tuple[type, ...], str] = {
    (Mapping,): 'has an object as a value: name its member with a dot, as in {"act.sub": …}',
    (list, tuple, set, frozenset): "has a list as a value: name one value, which a claim equals, or has in its list",
    (type(None),): "has null as a value: name the value that tokens have; a missing claim cannot be a condition",
}


def path_of(name: str) -> tuple[str, ...]:
    """Return the members that lead to a claim: ``act.sub`` is in the object ``act``; a URI is the name of a claim."""
    return (name,) if ":" in name else tuple(name.split("."))


def check_conditions(value: object) -> object:
    """Reject conditions that no token can meet, or that every token meets, before pydantic looks at them."""
    if not isinstance(value, dict):
        return value
    if not value:
        raise ValueError("is empty, which every token meets: name a claim and its value; or say everyone=True instead")
    if len(value) > MAX_CONDITIONS:
        raise ValueError(f"has more than {MAX_CONDITIONS} conditions: publish an event for each part of them")
    for name, wanted in value.items():
        _check_name(name)
        _check_wanted(wanted)
    return value


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        return
    path = path_of(name)
    if not all(path) or not name.strip():
        raise ValueError("has a name with an empty part, which no claim has")
    if len(path) > _MAX_DEPTH:
        raise ValueError(f"nests deeper than {_MAX_DEPTH} levels: issue what you revoke by as a claim of its own")
    if len(name) > MAX_IDENTIFIER_LENGTH:
        raise ValueError(f"has a name of more than {MAX_IDENTIFIER_LENGTH} characters")
    check_scalar(name)


def _check_wanted(wanted: object) -> None:
    for kinds, problem in _NO_VALUES.items():
        if isinstance(wanted, kinds):
            raise ValueError(problem)  # noqa: TRY004 - pydantic reports no other error
    if isinstance(wanted, str) and len(wanted) > MAX_IDENTIFIER_LENGTH:
        raise ValueError(f"has a value of more than {MAX_IDENTIFIER_LENGTH} characters")
    check_scalar(wanted)


Conditions = Annotated[dict[str, bool | int | float | str], BeforeValidator(check_conditions)]
"""Claims and the value of each: one to eight, in at most three levels."""


def compared(wanted: bool | float | str) -> ComparedValue:
    """Return the value of a condition as it is compared."""
    return (wanted,) if isinstance(wanted, bool) else wanted


def compared_values(claims: Mapping[str, object], name: str) -> list[ComparedValue]:
    """Return the values that a token has under a name: of a list its members, of a missing claim none.

    A claim whose name has the dots in itself counts as well as one that is found by following them.
    """
    path = path_of(name)
    found = _scalars(claims.get(name))
    return found if len(path) == 1 else found + _follow(claims, path)


def _follow(value: object, path: tuple[str, ...]) -> list[ComparedValue]:
    if not path:
        return _scalars(value)
    if isinstance(value, (list, tuple)):
        return [one for member in value if isinstance(member, Mapping) for one in _follow(member, path)]
    return _follow(value.get(path[0]), path[1:]) if isinstance(value, Mapping) else []


def _scalars(value: object) -> list[ComparedValue]:
    members = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    return [_scalar(member) for member in members if isinstance(member, (str, int, float))]


def _scalar(value: str | float) -> ComparedValue:
    if isinstance(value, str):
        return str.__str__(value)  # a subclass may define its own hash
    return (value,) if isinstance(value, bool) else value
