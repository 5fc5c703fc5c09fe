"""What went wrong on a connection: redis-py's errors in our words, sorted by what one can do about them."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Sequence

from redis import exceptions

from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError

# redis-py takes the first word off the answers that it has a class for.
_CODES: dict[type[Exception], str] = {
    exceptions.AuthenticationError: "WRONGPASS",  # or NOAUTH
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    exceptions.AuthorizationError: "NOAUTH",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}

# Those that it leaves in the text. It takes off "ERR", too, and what then comes first can be a word like DB or EXEC.
_LEFT_IN = frozenset(
    {"BUSY", "BUSYGROUP", "CROSSSLOT", "MISCONF", "NOGROUP", "NOREPLICAS", "UNBLOCKED", "UNKILLABLE", "WRONGTYPE"}
)

# Answers that mean "not now": the command was not carried out, and a moment later it may be. All others last.
_PASSING = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)


_QUOTED = ", with args"

# What a server says to a command, or to a form of one, that it does not know yet. The newest of those used here is
# XAUTOCLAIM, with XTRIM ... MINID: both came with Redis 6.2.
_TOO_OLD = ("unknown command", "unknown subcommand", "Unknown subcommand", "syntax error")


def map_error(error: Exception, place: str, *, secrets: Sequence[str], maybe_done: bool) -> TransportError:
    """Turn an error of redis-py or of the socket into one of ours.

    Args:
        error: what was raised.
        place: what was being done where.
        secrets: texts that the message must not contain.
        maybe_done: whether the server may have carried out what was asked, if it did not answer.
    """
    if isinstance(error, TransportError):
        return error
    text = _without(secrets, _reason(error))
    if (code := _code(error)) is not None:
        return _refused(code, text, place)
    if isinstance(_root(error), ssl.SSLCertVerificationError):
        return TransportError(f"{place} failed: {text}")
    return ConnectionFailed(f"{place} failed: {text}", maybe_done=maybe_done)


def refusal(answer: str, place: str, *, secrets: Sequence[str]) -> ServerRefused:
    """Turn the server's own words, as they stand on the wire, into an error of ours."""
    code, _, text = answer.partition(" ")
    # The server quotes the arguments of a command that it does not know, and those are payloads.
    return _refused(code, _without(secrets, text).partition(_QUOTED)[0], place)


def _refused(code: str, text: str, place: str) -> ServerRefused:
    if text.startswith(_TOO_OLD):
        text = f"{text}; Redis 6.2 or newer is needed, or Valkey"
    text = text if text.startswith(code) else f"{code} {text}"
    return ServerRefused(f"{place} refused: {text}", code=code, retryable=code in _PASSING)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _code(error: Exception) -> str | None:
    """Return the first word of the server's answer; ``None`` if the server did not answer."""
    if isinstance(error.__cause__, exceptions.RedisError):  # connecting to a unix socket wraps what the server answers
        error = error.__cause__
    if isinstance(error, exceptions.AuthenticationError) and "required" in str(error):
        return "NOAUTH"
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    if isinstance(error, exceptions.ResponseError):
        word = str(error).partition(" ")[0]
        return word if word in _LEFT_IN else "ERR"
    return None


def _root(error: BaseException) -> BaseException:
    """Return what redis-py wrapped; what is behind that in the chain may be the caller's own business."""
    while isinstance(error, exceptions.RedisError) and (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _reason(error: Exception) -> str:
    root = _root(error)
    if isinstance(root, (TimeoutError, asyncio.CancelledError)):
        return "no answer in time"
    if isinstance(root, OSError) and root.errno is not None and root.strerror:
        # asyncio puts the address into strerror, and the message has that already. TLS has numbers of its own.
        is_of_system = root.errno in errno.errorcode and not isinstance(root, ssl.SSLError)
        return os.strerror(root.errno) if is_of_system else root.strerror
    raised = error.__cause__ or error
    if not isinstance(raised, (exceptions.RedisError, OSError)):
        return type(raised).__qualname__  # the application's own, and its message may quote what it failed on
    return str(error).partition(_QUOTED)[0] or type(error).__name__
