"""Replies of the server, decoded in one place; and errors of redis-py or the socket as errors of this library.

Every reply is parsed by the shape that its command has: by the parser that the caller names, or else by `check_shape`.
A reply that its parser refuses belongs to another request, and then no later reply on that socket can be trusted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis import exceptions

from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command, words_of
from jwt_events.transport._redis.parsers import array, number, position
from jwt_events.transport._redis.protocol import ErrorReply, Request, RespProtocol
from jwt_events.transport._redis.shapes import check_shape

__all__ = ["ReplyDecoder", "ReplyParser", "array", "map_error", "number", "position", "unchanged"]

# redis-py cuts the first word off the error replies that it has a class for.
_CODES: dict[type[Exception], str] = {
    exceptions.AuthenticationError: "WRONGPASS",  # or NOAUTH
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    exceptions.AuthorizationError: "NOAUTH",
    exceptions.AskError: "ASK",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}

# Codes that redis-py leaves in the text. It cuts off "ERR", too; what then comes first can be a word like DB or EXEC.
_CODES_IN_TEXT = frozenset(
    {"BUSY", "BUSYGROUP", "CROSSSLOT", "MISCONF", "NOGROUP", "NOREPLICAS", "UNBLOCKED", "UNKILLABLE", "WRONGTYPE"}
)

# Error replies that mean "not now": the command was not carried out, and a moment later it may be. All others last.
_TEMPORARY = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)

# Those of them that another server would not send: a new connection may reach the present owner of the key.
REDIRECTIONS = frozenset({"ASK", "CLUSTERDOWN", "MOVED", "READONLY", "TRYAGAIN"})
_OF_A_CLUSTER = frozenset({"ASK", "MOVED"})

_CONNECTING = "connecting"

_TLS = "if the server speaks TLS there, use rediss in place of redis in the URL"
_NO_TLS = "if the server speaks no TLS there, use redis in place of rediss in the URL"

_QUOTED = ", with args"

# Error replies that concern one key, which the server does not name; a stream has more than one.
_ABOUT_A_KEY = frozenset({"NOPERM", "WRONGTYPE"})

# Where the key stands in a command, if not after its name.
_KEY_AFTER = {"XREAD": "STREAMS", "XREADGROUP": "STREAMS"}
_KEY_AT = {"EVAL": 3, "XGROUP": 2, "XINFO": 2}
_WITHOUT_KEY = frozenset(
    {"ACL", "AUTH", "CLIENT", "CLUSTER", "CONFIG", "HELLO", "INFO", "PING", "READONLY", "SELECT", "TIME"}
)

# What a server replies to a command, or to a form of one, that it does not know yet. The newest of those used here is
# XAUTOCLAIM, with XTRIM ... MINID: both came with Redis 6.2.
_TOO_OLD = ("unknown command", "unknown subcommand", "Unknown subcommand", "syntax error")

ReplyParser: TypeAlias = Callable[[Any], Any]
"""Checks and converts a reply. Any exception that it raises means that the reply cannot be that of the command."""


def unchanged(reply: Any) -> Any:
    """Return the reply unchanged; raise if it is an error reply."""
    if type(reply) is ErrorReply:
        raise reply
    return reply


class ReplyDecoder:
    """Decodes replies, and describes errors without a password in them.

    Args:
        address: the server.
        destination: the channel or key that error messages name; empty for none.
        secrets: texts that no message may contain.
        on_moved: called when a server says that another node of its cluster owns a key.
    """

    def __init__(
        self,
        address: str,
        destination: str,
        *,
        secrets: Sequence[str],
        on_moved: Callable[[], object] | None = None,
    ) -> None:
        self.address: str = address
        self._destination = destination
        self._secrets = secrets
        self._on_moved = on_moved

    def at(self, address: str) -> ReplyDecoder:
        """Return a decoder of another server's replies."""
        return ReplyDecoder(address, self._destination, secrets=self._secrets, on_moved=self._on_moved)

    def about(self, destination: str, *, on_moved: Callable[[], object]) -> ReplyDecoder:
        """Return a decoder of replies about another channel or key."""
        return ReplyDecoder(self.address, destination, secrets=self._secrets, on_moved=on_moved)

    def decode(self, request: Request, parse: ReplyParser | None = None) -> list[Any]:
        """Decode all replies; an error takes the place of each command that failed.

        Args:
            request: the request.
            parse: the parser of each reply; ``None`` to check each by the shape of its command's replies.

        A reply that cannot be parsed belongs to another request: the two sides are out of sync. Then the socket is
        closed, and no reply on it that was not decoded before is trusted, of whichever request.
        """
        if request.protocol is not None and request.protocol.is_out_of_sync:
            request.replies.clear()
        elif len(request.replies) == len(request.commands):
            try:
                if parse is not None:
                    decoded = []
                    for reply in request.replies:  # for one, quicker than a comprehension
                        decoded.append(parse(reply))  # noqa: PERF401 - see above
                    return decoded
                return list(map(check_shape, request.replies, map(words_of, request.commands)))
            except Exception:  # noqa: BLE001, S110 - the server, or what stands for it, may answer anything
                pass
        return self._decode_each(request, parse)

    def _decode_each(self, request: Request, parse: ReplyParser | None) -> list[Any]:
        decoded: list[Any] = []
        for command, reply in zip(map(words_of, request.commands), request.replies, strict=False):
            if type(reply) is ErrorReply:
                decoded.append(self.redirected(reply, _name(command), request.protocol, key_of(command)))
                continue
            try:
                decoded.append(check_shape(reply, command) if parse is None else parse(reply))
            except Exception:  # noqa: BLE001 - see above
                if request.protocol is not None:
                    request.protocol.mark_out_of_sync()
                break
        if missing := len(request.commands) - len(decoded):
            failure = (request.protocol and request.protocol.failure) or TimeoutError()
            decoded += [self.failure(failure, _name(words_of(request.commands[0])), maybe_done=True)] * missing
        return decoded

    def redirected(
        self, reply: ErrorReply, operation: str, protocol: RespProtocol | None, key: str = ""
    ) -> ServerRefused:
        """Return the error that describes an error reply; close a socket whose server owns the key no more."""
        error = self.error_reply(reply, operation, key)
        if error.code in REDIRECTIONS:
            if error.code in _OF_A_CLUSTER and self._on_moved is not None:
                self._on_moved()
            if protocol is not None:
                protocol.abort()
        return error

    def failure(self, error: Exception, operation: str, *, maybe_done: bool) -> TransportError:
        """Return the error that describes why a connection failed; see `map_error`."""
        return map_error(error, self._context(operation), secrets=self._secrets, maybe_done=maybe_done)

    def not_connected(self, error: Exception, *, tls: bool) -> TransportError:
        """Return the error that describes why there is no connection.

        Args:
            error: what was raised.
            tls: whether it would have been by TLS.
        """
        found = self.failure(error, _CONNECTING, maybe_done=False)
        root = _root(error)
        is_cut = isinstance(root, ConnectionResetError) or "closed by server" in str(root)
        advice = _NO_TLS if tls and isinstance(root, TimeoutError) else _TLS if not tls and is_cut else ""
        if advice and type(found) is ConnectionFailed:
            return ConnectionFailed(f"{found}; {advice}")
        return found

    def error_reply(self, reply: ErrorReply, operation: str, key: str = "") -> ServerRefused:
        """Return the error that describes an error reply; a refusal that concerns a key names this one."""
        code, _, text = str(reply).partition(" ")
        context = self._context(operation, key if code in _ABOUT_A_KEY else "")
        # The server quotes the arguments of a command that it does not know, and those are payloads.
        return _refused(code, _without(self._secrets, text).partition(_QUOTED)[0], context)

    def elsewhere(self, address: str) -> LenientDecoder:
        """Return a decoder for another server that is one of several, with the same destination and secrets."""
        return LenientDecoder(address, self._destination, secrets=self._secrets)

    def _context(self, operation: str, key: str = "") -> str:
        name = key or self._destination
        where = "to" if operation == _CONNECTING else "at"
        return f"{operation} {where} {self.address}" + (f" for {name!r}" if name else "")


class LenientDecoder(ReplyDecoder):
    """Decodes the replies of one of several servers: what it refuses another one may accept, so all is retryable."""

    def failure(self, error: Exception, operation: str, *, maybe_done: bool) -> TransportError:
        """Return the error that describes why a connection failed."""
        found = super().failure(error, operation, maybe_done=maybe_done)
        found.retryable = True
        return found

    def error_reply(self, reply: ErrorReply, operation: str, key: str = "") -> ServerRefused:
        """Return the error that describes an error reply."""
        found = super().error_reply(reply, operation, key)
        found.retryable = True
        return found


def map_error(error: Exception, context: str, *, secrets: Sequence[str], maybe_done: bool) -> TransportError:
    """Convert an error of redis-py or of the socket into an error of this library.

    Args:
        error: what was raised.
        context: which operation failed, and where.
        secrets: texts that the message must not contain.
        maybe_done: whether the server may have carried out the command if it did not reply.
    """
    if isinstance(error, TransportError):
        return error
    text = _without(secrets, _reason(error))
    if (code := _code(error)) is not None:
        return _refused(code, text, context)
    if isinstance(_root(error), ssl.SSLCertVerificationError):
        return TransportError(f"{context} failed: {text}")
    return ConnectionFailed(f"{context} failed: {text}", maybe_done=maybe_done)


def _refused(code: str, text: str, context: str) -> ServerRefused:
    if text.startswith(_TOO_OLD):
        text = f"{text}; Redis 6.2 or newer is needed, or Valkey"
    text = text if text.startswith(code) else f"{code} {text}"
    return ServerRefused(f"{context} refused: {text}", code=code, retryable=code in _TEMPORARY)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _code(error: Exception) -> str | None:
    """Return the code of the error reply, its first word; ``None`` if the server did not reply."""
    if isinstance(error.__cause__, exceptions.RedisError):  # connecting to a unix socket wraps the error reply
        error = error.__cause__
    if isinstance(error, exceptions.AuthenticationError) and "required" in str(error):
        return "NOAUTH"
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    if isinstance(error, exceptions.ResponseError):
        word = str(error).partition(" ")[0]
        return word if word in _CODES_IN_TEXT else "ERR"
    return None


def _root(error: BaseException) -> BaseException:
    """Return the error that redis-py wrapped. Errors deeper in the chain may come from the application's own code."""
    while isinstance(error, exceptions.RedisError) and (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _reason(error: Exception) -> str:
    root = _root(error)
    if isinstance(root, (TimeoutError, asyncio.CancelledError)):
        return "no answer in time"
    if isinstance(root, OSError) and root.errno is not None and root.strerror:
        # asyncio puts the address into strerror, and the message has that already. TLS has error numbers of its own.
        is_of_system = root.errno in errno.errorcode and not isinstance(root, ssl.SSLError)
        return os.strerror(root.errno) if is_of_system else root.strerror
    raised = error.__cause__ or error
    if not isinstance(raised, (exceptions.RedisError, OSError)):
        return type(raised).__qualname__  # from the application's code, and its message may quote what it failed on
    return str(error).partition(_QUOTED)[0] or type(error).__name__


def key_of(command: Command) -> str:
    """Return the key or channel that a command is about; empty if there is none."""
    name = _name(command)
    words = [_text(word) for word in command]
    at = words.index(_KEY_AFTER[name]) + 1 if name in _KEY_AFTER else _KEY_AT.get(name, 1)
    return "" if name in _WITHOUT_KEY or at >= len(words) else words[at]


def _name(command: Command) -> str:
    return _text(command[0])


def _text(word: object) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
