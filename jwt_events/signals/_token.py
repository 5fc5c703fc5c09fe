"""A signed token, taken apart strictly: one JSON object that every parser reads alike, or a refusal. Pure.

Size, form and depth are checked before a parser sees the text. Nothing in the header chooses the key but ``kid``, and
nothing chooses the algorithm but what the program allows.

Sources: RFC 7515 §4 (members are unique), §4.1.11 (``crit``), §7.1 (compact serialization); RFC 8725 §3.1, §3.11.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from jwt_events.errors import InvalidOption, SignalRefused

MAX_TOKEN_BYTES = 16_384
"""Larger tokens are refused before they are parsed."""

_MAX_HEADER = 4_096
_MAX_BRACKETS = 256  # a bound on the depth that needs no parser
_MAX_DEPTH = 10
_MAX_DIGITS = 19

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")

# What would bring a key of the sender's choice, or change what is signed. `x5c` and `x5t` are ignored, as some
# providers send them.
_REFUSED_MEMBERS = frozenset({"b64", "crit", "cty", "enc", "epk", "jku", "jwk", "x5u", "zip"})

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA")
_KNOWN = frozenset({*ASYMMETRIC, "HS256", "HS384", "HS512"})


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token that has the right form; nothing about it is verified.

    Attributes:
        algorithm: the ``alg`` of its header.
        kid: the ``kid``.
        typ: the ``typ`` in lower case without ``application/``; ``None`` if there is none.
        claims: the payload.
        signed: the bytes that the signature is over.
        signature: the signature.
    """

    algorithm: str
    kid: str | None
    typ: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def algorithms(option: Iterable[str]) -> frozenset[str]:
    """Validate an option that lists the algorithms that are allowed.

    Raises:
        InvalidOption: it is empty, or names ``none`` or an unknown algorithm.
    """
    chosen = frozenset([option] if isinstance(option, str) else option)
    if not chosen or not chosen <= _KNOWN:
        raise InvalidOption("algorithms", f"must be some of {', '.join(sorted(_KNOWN))}; none is never accepted")
    return chosen


def parse(token: object, allowed: frozenset[str]) -> SignedToken:
    """Take a token apart.

    Raises:
        SignalRefused: it is not a compact JWS of one of these algorithms, with unambiguous JSON in it.
    """
    if not isinstance(token, str):
        raise refused("the token must be text")
    if len(token) > MAX_TOKEN_BYTES:
        raise refused(f"the token is longer than {MAX_TOKEN_BYTES} characters")
    if (parts := _PARTS.fullmatch(token)) is None:
        raise refused("the token is not a compact JWS: three parts in base64url")
    header = _object(parts[1], "header", _MAX_HEADER)
    if present := sorted(_REFUSED_MEMBERS & header.keys()):
        raise refused(f"the header has the member {present[0]}, which is not accepted")
    algorithm, kid, typ = (header.get(name) for name in ("alg", "kid", "typ"))
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise refused("the algorithm of the signature (alg) is not one of those that are accepted")
    if not isinstance(kid, str | None) or not isinstance(typ, str | None):
        raise refused("kid and typ must be text")
    return SignedToken(
        algorithm,
        kid,
        None if typ is None else typ.lower().removeprefix("application/"),
        _object(parts[2], "payload", MAX_TOKEN_BYTES),
        f"{parts[1]}.{parts[2]}".encode("ascii"),
        _bytes(parts[3], "signature"),
    )


def parse_object(text: str, part: str) -> dict[str, Any]:
    """Parse JSON that must be an object, with unique members, finite numbers and bounded depth.

    Raises:
        SignalRefused: it is not.
    """
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise refused(f"the {part} is nested too deep")
    try:
        value = _DECODER.decode(text)
    except SignalRefused as error:
        raise refused(f"the {part} {error.description}") from None
    except (ValueError, RecursionError):
        raise refused(f"the {part} is not JSON") from None
    if not isinstance(value, dict):
        raise refused(f"the {part} is not a JSON object")
    _check(value, part)
    return value


def refused(description: str) -> SignalRefused:
    """Return a refusal of what was sent, with the code for everything that has none of its own."""
    return SignalRefused("invalid_request", description)


def _bytes(part: str, name: str) -> bytes:
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise refused(f"the {name} is not base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise refused(f"the {name} is not base64url in its only form")
    return decoded


def _object(part: str, name: str, limit: int) -> dict[str, Any]:
    if len(part) > limit:
        raise refused(f"the {name} is longer than {limit} characters")
    try:
        text = _bytes(part, name).decode()
    except UnicodeDecodeError:
        raise refused(f"the {name} is not UTF-8") from None
    return parse_object(text, name)


def _check(value: object, part: str) -> None:
    """Refuse values that nest too deep, or text that UTF-8 cannot express."""
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if any("\ud800" <= character <= "\udfff" for character in item):
                raise refused(f"the {part} has text that is not Unicode")
        elif isinstance(item, dict | list):
            if depth > _MAX_DEPTH:
                raise refused(f"the {part} is nested too deep")
            inside = [*item, *item.values()] if isinstance(item, dict) else item
            pending.extend((inner, depth + 1) for inner in inside)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise refused("has a member twice")
    return found


def _constant(text: str) -> NoReturn:
    raise refused("has a number that JSON does not have")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise refused("has a number that is too long")
    return int(digits)


def _number(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise refused("has a number that is too large")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_number
)
