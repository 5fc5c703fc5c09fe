"""Tells whether ``decode`` failed because a service that it needs cannot be reached, or because of the token. Pure.

The errors of HTTP libraries are recognised by their names, as none of these libraries is a dependency.
"""

from __future__ import annotations

from collections.abc import Iterator

_UNREACHABLE = frozenset(
    {
        "aiohttp.client_exceptions.ClientError",
        "google.auth.exceptions.TransportError",
        "httpcore.NetworkError",
        "httpcore.ProtocolError",
        "httpcore.TimeoutException",
        "httpx.HTTPStatusError",
        "httpx.RequestError",
        "jwt.exceptions.PyJWKClientConnectionError",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.TimeoutError",
        "urllib3.exceptions.HTTPError",
    }
)
_BUSY = frozenset({408, 425, 429})  # RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4: the same request may succeed later
_MAX_ERRORS = 32


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error, one that it was raised from, or one in its group, says that a service is unreachable.

    A reply with a status below 500 is the service's verdict about the token, unless it asks to come again later.
    """
    return any(_is_network(one) and not _is_verdict(one) for one in _origins(error))


def _origins(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those behind it, each once, and not more than a few."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MAX_ERRORS:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        if one.__cause__ is not None:
            waiting.append(one.__cause__)


def _is_network(error: BaseException) -> bool:
    return isinstance(error, OSError) or any(
        f"{kind.__module__}.{kind.__qualname__}" in _UNREACHABLE for kind in type(error).__mro__
    )


def _is_verdict(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    for source, name in ((error, "status"), (response, "status_code"), (error, "code")):
        status = getattr(source, name, None)
        if isinstance(status, int):
            return 400 <= status < 500 and status not in _BUSY
    return False
