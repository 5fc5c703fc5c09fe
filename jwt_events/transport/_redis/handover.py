"""The handover of a socket from redis-py, which opens it and speaks to the server first. The door to its private parts.

redis-py has no public way to give away a socket. So the parts that are used are looked at before they are used: a class
that stands in for its connections, as testing kits have, or a later redis-py may not have them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import redis
from redis.asyncio.connection import AbstractConnection

from jwt_events.errors import TransportError

SUPPORTED = ">=6.4,!=8.0.0,<9"
"""The versions of redis-py that this library is tested with, as its metadata says."""


def unsupported(cls: type, lack: str) -> TransportError:
    """Return the error about a class of redis-py, or one that stands in for it, without a part that is used here."""
    installed = getattr(redis, "__version__", "of an unknown version")
    return TransportError(
        f"{cls.__module__}.{cls.__qualname__} {lack}: it is no connection of redis-py, or one of a version that is not"
        f" supported; installed is redis {installed}, supported is redis{SUPPORTED}"
    )


def check_methods(raw: AbstractConnection) -> None:
    """Look whether a connection can be opened and closed.

    Raises:
        TransportError: it cannot, and trying again would not change that.
    """
    for name in ("connect", "disconnect"):
        if not callable(getattr(raw, name, None)):
            raise unsupported(type(raw), f"has no {name}()")


def take_socket(raw: AbstractConnection) -> asyncio.StreamWriter:
    """Take the socket from a connection that is open; redis-py can neither use nor close it afterwards.

    Raises:
        TransportError: it has none that can be taken, and trying again would not change that.
    """
    # The classes of redis-py declare both, so that a later one that names them otherwise has neither.
    parts: tuple[Any, Any] = getattr(raw, "_reader", None), getattr(raw, "_writer", None)
    if not isinstance(parts[0], asyncio.StreamReader) or not isinstance(parts[1], asyncio.StreamWriter):
        raise unsupported(type(raw), "has no socket that can be taken over")
    raw._reader = raw._writer = None  # noqa: SLF001 - see above
    writer: asyncio.StreamWriter = parts[1]
    return writer


async def abort(raw: AbstractConnection) -> None:
    """Close the socket of a connection that could not be opened, at once."""
    writer = getattr(raw, "_writer", None)  # redis-py can only close in good order, which may wait for the server
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()
    with suppress(Exception):  # of a class that stands in for redis-py's, whatever it does
        await raw.disconnect(nowait=True)
