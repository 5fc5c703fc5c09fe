"""Validated types of event fields: instants, identifiers and metadata.

Every validator is a pure function that returns the value to keep, or raises ``ValueError`` with a message that names
the limit and never the value.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, JsonValue, StringConstraints, ValidationInfo

MAX_IDENTIFIER_LENGTH = 512
MAX_TEXT_LENGTH = 1_024
MAX_METADATA_DEPTH = 8
MAX_DATA_DEPTH = 100

FROM_WIRE = {"from": "wire"}
"""Context of the validation of what was received."""

# Upper limit of a NumericDate, to tell seconds from milliseconds: every instant in milliseconds since 1973 is above it,
# every instant in seconds until the year 5138 is below it. An integer, as nearly every ``iat`` is: they are compared in
# a third of the time that an integer and a float take.
MAX_NUMERIC_DATE = 100_000_000_000
_MAX_INTEGER = 2**63 - 1

_COMPACT_JWT = re.compile(r"\s*(Bearer\s+)?eyJ[\w-]+(\.[\w-]*){2}((\.[\w-]*){2})?\s*", re.ASCII | re.IGNORECASE)
_THREE_SEGMENTS = re.compile(r"\s*[\w-]+\.[\w-]+\.[\w-]*\s*", re.ASCII)

_LEAP_SECOND = re.compile(r"(?<=[T ][0-9]{2}:[0-9]{2}:)60")

# RFC 3986, appendix A and B.
_URI_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PCHAR = r"[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}"
_AUTHORITY = re.compile(
    r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?"
    r"(?:\[[0-9A-Za-z._~!$&'()*+,;=:-]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_PATH = re.compile(rf"(?:{_PCHAR}|/)*")
_QUERY = re.compile(rf"(?:{_PCHAR}|[/?])*")


@lru_cache(maxsize=256)
def is_uri_reference(text: str) -> bool:
    """Return whether ``text`` is a URI-reference (RFC 3986 §4.1) that is not empty, as CloudEvents demands of a source.

    A host name, a path, a URL and a URN are.
    """
    match = _URI_PARTS.fullmatch(text)
    if not text or match is None:
        return False
    scheme, authority, path, query, fragment = match.groups()
    if scheme is None and authority is None and ":" in path.partition("/")[0]:
        return False
    return (
        (scheme is None or _SCHEME.fullmatch(scheme) is not None)
        and (authority is None or _AUTHORITY.fullmatch(authority) is not None)
        and _PATH.fullmatch(path) is not None
        and all(_QUERY.fullmatch(part or "") is not None for part in (query, fragment))
    )


def parse_instant(text: str) -> datetime:
    """Parse RFC 3339: its letters in either case, and second 60 as the second that follows.

    Raises:
        ValueError: it is not an instant.
    """
    regular, leap_seconds = _LEAP_SECOND.subn("59", text.upper(), count=1)
    try:
        return datetime.fromisoformat(regular) + timedelta(seconds=leap_seconds)
    except OverflowError:
        raise ValueError("is after the year 9999") from None


def looks_like_jwt(text: str) -> bool:
    """Return whether ``text`` is a compact JWS or JWE: 3 or 5 base64url segments, the first an encoded JSON object."""
    return text.count(".") >= 2 and _COMPACT_JWT.fullmatch(text) is not None


def convert_numeric_date(value: object, info: ValidationInfo) -> object:
    """Convert a NumericDate (RFC 7519 §2: seconds since 1970 in UTC, fractions allowed) to an aware datetime.

    Text is accepted as an instant in JSON only, which has no type for it.
    """
    if isinstance(value, str) and info.mode == "json":
        return parse_instant(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value  # pydantic accepts a datetime and rejects everything else
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number of seconds")
    if value >= MAX_NUMERIC_DATE:
        raise ValueError("looks like milliseconds; a NumericDate is in seconds, so divide by 1000")
    if value < 0:
        raise ValueError("must not be before 1970")
    return datetime.fromtimestamp(value, UTC)


def convert_to_utc(value: datetime) -> datetime:
    """Convert an aware datetime to UTC, so that equal instants have equal text on the wire."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


def reject_jwt(text: str) -> str:
    """Reject a whole JWT in an identifier or text: a bus has many readers, and a token is a secret."""
    if looks_like_jwt(text):
        raise ValueError("looks like a whole JWT, which must not travel on a bus; publish its jti")
    return text


def reject_segments(text: str) -> str:
    """Reject a token id of the form ``x.y.z``: it is the token itself, whatever its encoding."""
    if text.count(".") == 2 and _THREE_SEGMENTS.fullmatch(text):
        raise ValueError("looks like a whole token (x.y.z), which must not travel on a bus; publish its jti")
    return text


def check_metadata(value: object) -> object:
    """Reject metadata that nests too deep or holds a value that must not be sent, before pydantic recurses into it."""
    return _check_json(value, MAX_METADATA_DEPTH)


def check_data(value: object, info: ValidationInfo) -> object:
    """Reject data of an unknown event that nests too deep or holds a value that must not be sent.

    What came from the wire is kept as it is: it is only read.
    """
    return value if info.context is FROM_WIRE else _check_json(value, MAX_DATA_DEPTH)


def _check_json(value: object, max_depth: int) -> object:
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > max_depth:
            raise ValueError(f"nests deeper than {max_depth} levels")
        if isinstance(item, dict):
            pending.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            pending.extend((part, depth + 1) for part in item)
        else:
            check_scalar(item)
    return value


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate, which UTF-8 cannot express") from None


def check_scalar(item: object) -> None:
    """Reject a token, and a value that not all readers of JSON read as it is."""
    if isinstance(item, str):
        reject_jwt(item)
        _check_encodable(item)
    elif isinstance(item, float) and not math.isfinite(item):
        raise ValueError("must not contain NaN or Infinity, which JSON does not have")
    elif isinstance(item, int) and not -_MAX_INTEGER <= item <= _MAX_INTEGER:
        raise ValueError("must not contain an integer beyond 64 bits, which other JSON readers would change")


Instant = Annotated[AwareDatetime, BeforeValidator(convert_numeric_date), AfterValidator(convert_to_utc)]
"""Point in time: an aware datetime, or a NumericDate in seconds."""

Identifier = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_IDENTIFIER_LENGTH, pattern=r"\S"),
    AfterValidator(reject_jwt),
]
"""Opaque identifier from the application: not empty, at most 512 characters, not a whole token."""

TokenId = Annotated[Identifier, AfterValidator(reject_segments)]
"""``jti`` of a token, never the token itself."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH), AfterValidator(reject_jwt)]
"""Short text for people, at most 1,024 characters."""

Metadata = Annotated[dict[str, JsonValue], BeforeValidator(check_metadata)]
"""Additional data of the application, as a JSON object."""

Data = Annotated[dict[str, JsonValue], BeforeValidator(check_data)]
"""Content of an event of an unknown type, as a JSON object."""
