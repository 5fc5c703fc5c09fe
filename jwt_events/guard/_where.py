"""Where the token of a request is read from: a header, a cookie. Pure.

A request that brings a token in two places is ambiguous: the guard would decide about one of them, and what comes after
it may use the other.

Sources: RFC 6750 §2 (one method for each request), RFC 6265 §4.1.1 and §5.4 (cookies), RFC 9113 §8.2.3 (cookies in
several header fields), RFC 9110 §5.6.2 (what a name may consist of) and §11.1 (schemes are case-insensitive names).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from jwt_events.errors import InvalidOption

HeaderValues: TypeAlias = Callable[[str], Sequence[str]]
"""Returns the values of all headers with a name, in any case."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_BEARER = re.compile(r"bearer(?![A-Za-z0-9!#$%&'*+.^_`|~-])", re.IGNORECASE)
_OTHERS = ("cookie", "host", "proxy-authorization", "set-cookie")


class AmbiguousToken(ValueError):
    """A request brings more than one token, or more than one value in a place that has room for one."""


class TokenSource:
    """The places in a request where its token may be.

    Args:
        header: the name of a header. Only ``Authorization`` needs the scheme ``Bearer`` before the token.
        cookie: the name of a cookie that may carry the token instead; ``None`` for none.

    Raises:
        InvalidOption: a name that no header or cookie can have.
    """

    def __init__(self, header: str, cookie: str | None) -> None:
        self.header: str = name_of("header", header).lower()
        if self.header in _OTHERS:
            advice = ": pass cookie= with the name of the cookie" if self.header == "cookie" else ""
            raise InvalidOption("header", f"must be a header that carries a token{advice}")
        self.cookie: str | None = None if cookie is None else name_of("cookie", cookie)

    def find(self, values_of: HeaderValues) -> str | None:
        """Return the token of a request; ``None`` if it brings none. It may be empty, where a scheme stands alone.

        Raises:
            AmbiguousToken: there is more than one.
        """
        in_header = self._in_header(values_of(self.header))
        cookies = () if self.cookie is None else tuple(cookies_named(self.cookie, values_of("cookie")))
        if len(cookies) > 1:
            raise AmbiguousToken
        in_cookie = cookies[0] if cookies and cookies[0] else None  # an emptied cookie is how some log out
        if in_header is not None and in_cookie is not None:
            raise AmbiguousToken
        return in_cookie if in_header is None else in_header

    def is_used(self, values_of: HeaderValues) -> bool:
        """Return whether a request brings a token there, good or bad. Other credentials are none."""
        in_header = any(self._in_header([value]) is not None for value in values_of(self.header))
        return in_header or (self.cookie is not None and any(cookies_named(self.cookie, values_of("cookie"))))

    def _in_header(self, values: Sequence[str]) -> str | None:
        if len(values) > 1:
            raise AmbiguousToken
        value = values[0].strip(" \t") if values else ""
        if _BEARER.match(value) is not None:
            rest = value[len("bearer") :]
            return rest.strip(" ") if rest[:1] == " " else ""  # after anything else it is not a token that all read
        return None if self.header == "authorization" or not value else value


def values_in(option: str, values: Any) -> Sequence[str]:
    """Return the values of the headers that a program passed; text is one, ``None`` none.

    Raises:
        InvalidOption: one is not text.
    """
    if values is None or isinstance(values, str):
        return () if values is None else (values,)
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise InvalidOption(option, f"must be the values of headers, a list of text, not {type(values).__name__}")
    found = tuple(value for value in values if value is not None)
    for value in found:
        if not isinstance(value, str):
            raise InvalidOption(option, f"must be text, not {type(value).__name__}: decode bytes as latin-1")
    return found


def cookies_named(name: str, values: Sequence[str]) -> Iterator[str]:
    """Yield the values of all cookies with a name; without the quotes that some libraries put around them."""
    for pair in ";".join(values).split(";"):
        key, _, value = pair.strip(" \t").partition("=")
        if key.rstrip(" \t") == name:
            bare = value.strip(" \t")
            yield bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] == '"' else bare


def name_of(option: str, value: Any) -> str:
    """Return the name of a header or cookie.

    Raises:
        InvalidOption: there can be none with this name.
    """
    if not isinstance(value, str):
        raise InvalidOption(option, f"must be text, not {type(value).__name__}")
    if _NAME.fullmatch(value) is None:
        raise InvalidOption(option, "must be a name: 1 to 256 letters, digits, and !#$%&'*+-.^_`|~ (RFC 9110 §5.6.2)")
    return value
