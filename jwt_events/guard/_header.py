"""The ``kid`` in the header of a token, read so that no other parser can have read another one. Pure.

An attacker who holds a leaked key writes the header. If the guard read no ``kid`` where the library that verifies the
signature reads one, the token would be let in. So what is ambiguous is refused: members that appear twice, bytes that
are not UTF-8, characters that some decoders of base64 pass over, numbers that JSON does not have or that are too long,
and nesting so deep that it depends on the stack of the caller whether a parser gives up.

Sources: RFC 7515 §4 (members are unique), §7.1 (compact serialization), RFC 7516 §7.1 (five parts), RFC 4648 §5.
"""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import Any, NoReturn

_MAX_BYTES = 8192  # certificates in `x5c` fill some thousands
_MAX_BRACKETS = 64  # a bound on the depth that needs no parser

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")  # some issuers pad, though RFC 7515 §2 says not to


class UnreadableHeader(ValueError):
    """A header that is not one JSON object which every parser reads alike. The message says why, and quotes nothing."""


class HeaderTooLarge(UnreadableHeader):
    """A header that no parser should be given."""


def kid_of(token: str) -> str | None:
    """Return the ``kid`` of a token; ``None`` if it has none, or if it is no JWT: fewer than three parts.

    Raises:
        HeaderTooLarge: its header is too long, or nested too deep.
        UnreadableHeader: it has the form of a JWT, and no header that can be read.
    """
    first, *rest = token.split(".", 2)
    if len(rest) < 2:
        return None
    if len(first) > _MAX_BYTES:
        raise HeaderTooLarge(f"longer than {_MAX_BYTES} characters")
    return _kid_in(first)


@lru_cache(maxsize=256)  # tokens signed with one key nearly always have the same header; at most 2 MB
def _kid_in(part: str) -> str | None:
    kid = _read(part).get("kid")
    if kid is None:
        return None
    if not isinstance(kid, str) or not _is_unicode(kid):
        raise UnreadableHeader("kid is not text")
    return kid


def _read(part: str) -> dict[str, Any]:
    if _BASE64URL.fullmatch(part) is None:
        raise UnreadableHeader("not base64url")
    bare = part.rstrip("=")
    try:
        text = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except ValueError:
        raise UnreadableHeader("not UTF-8 in base64url") from None
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise HeaderTooLarge("nested too deep")
    try:
        header = _DECODER.decode(text)
    except UnreadableHeader:
        raise
    except (ValueError, RecursionError):
        raise UnreadableHeader("not JSON") from None
    if not isinstance(header, dict):
        raise UnreadableHeader("not a JSON object")
    return header


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise UnreadableHeader("a member appears twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise UnreadableHeader("a number that JSON does not have")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which some parsers replace
        return False
    return True


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
