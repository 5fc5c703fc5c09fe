"""The door to redis-py: connections of the library's own.

redis-py's clients retry and reconnect by themselves, in silence: a lost reply repeats an XADD, a lost connection
resubscribes and what was sent meanwhile is gone. So nothing here uses its clients or its pools. A `Connection` is one
socket: it never retries, never reconnects, waits no longer than it is told, and after any failure is closed for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jwt_events.errors import InvalidOption, TransportError
from jwt_events.transport.failures import translate

Argument = bytes | str | int

_SCHEMES = ("redis://", "rediss://", "unix://")

# Longest wait for a socket to close in good order before it is torn down.
_CLOSE_WITHIN = 1.0

# What a client was given for its own retrying, and the machinery that a pool shares between its connections: none of it
# may steer, or be touched by, a connection that is ours.
_NOT_OURS = (
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "retry_on_error",
    "retry_on_timeout",
)


class Connector:
    """Makes connections like those of a client or URL, and leaves the client alone.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` (also one made by a Sentinel), or a ``redis://``, ``rediss://`` or
            ``unix://`` URL.
        destination: the channel or key that error messages name.

    Raises:
        InvalidOption: it is neither. The message never repeats a URL, which may hold a password.
    """

    def __init__(self, client_or_url: Redis | str, *, destination: str = "") -> None:
        self._pool = pool = _pool_of(client_or_url)  # kept alive, as a Sentinel's connections refer to theirs weakly
        options = {name: value for name, value in pool.connection_kwargs.items() if name not in _NOT_OURS}
        self.destination = destination
        self.host: str
        self.port: int | None
        self.host, self.port = _host(options)
        self.address: str = _address(options)
        self._secrets = [str(options[name]) for name in ("password", "ssl_password") if options.get(name)]
        self._connection_class = pool.connection_class
        self._options = options | {
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            "socket_timeout": None,  # every wait here has a deadline of its own
            "socket_connect_timeout": options.get("socket_connect_timeout") or _CLOSE_WITHIN * 5,
            "decode_responses": False,  # one undecodable payload would make every later read fail
            "protocol": 2,  # with 3, redis-py logs pushed payloads, and nothing here needs it
        }
        try:
            self._connection_class(**self._options)
        except (exceptions.RedisError, TypeError, ValueError):  # without its message, which can quote values
            raise InvalidOption("client_or_url", "has an option that redis-py does not accept") from None

    def __repr__(self) -> str:
        return f"<Connector {self.address}>"

    async def connect(self, *, within: float) -> Connection:
        """Open a connection, authenticated and ready.

        Args:
            within: seconds for all of it.

        Raises:
            TransportError: it could not be opened; the message says where to, and holds no password.
        """
        connection = Connection(self._connection_class(**self._options), self)
        async with connection.failing_as("connecting", within=within, maybe_done=False):
            try:
                await connection.raw.connect()  # type: ignore[no-untyped-call]  # redis-py does not annotate it
            except (exceptions.RedisError, OSError):
                raise
            except Exception as error:  # noqa: BLE001 - a client's credential provider is the application's code
                raise self.failure(error, "connecting", maybe_done=False) from None
        return connection

    def failure(self, error: Exception, doing: str, *, maybe_done: bool) -> TransportError:
        """Say in our words what went wrong, without a password."""
        place = f"{doing} at {self.address}" + (f" for {self.destination!r}" if self.destination else "")
        return translate(error, place, secrets=self._secrets, maybe_done=maybe_done)


class Connection:
    """One socket to the server. Made by `Connector.connect`.

    One task may read at a time; another may send meanwhile. After a failure or a cancellation in the middle of
    anything the socket is closed, because nobody could tell any more which answer belongs to which question.
    """

    def __init__(self, raw: AbstractConnection, connector: Connector) -> None:
        self.raw = raw
        self._connector = connector

    @property
    def hung_up(self) -> bool:
        """Whether it is closed, by either side, as far as this process has been told."""
        reader, writer = self.raw._reader, self.raw._writer  # noqa: SLF001 - redis-py has no way to ask without reading
        return reader is None or writer is None or reader.at_eof() or writer.transport.is_closing()

    async def call(self, *command: Argument, within: float) -> Any:
        """Send one command and return its answer.

        Args:
            command: its words.
            within: seconds for sending and answering.

        Raises:
            TransportError: no answer, or an error for an answer.
        """
        (answer,) = await self.pipeline([command], within=within)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    async def pipeline(self, commands: Sequence[Sequence[Argument]], *, within: float) -> list[Any]:
        """Send commands in one go and return their answers, an error in the place of each that was refused.

        If the connection fails in between, the places of all unanswered commands hold that error.

        Args:
            commands: each a sequence of words.
            within: seconds for all of them.
        """
        try:
            await self.ask(commands, within=within)
        except TransportError as error:
            return [error] * len(commands)
        return await self.answers(commands, within=within)

    async def ask(self, commands: Sequence[Sequence[Argument]], *, within: float) -> None:
        """Send commands; `answers` must follow before anything else is asked.

        Raises:
            TransportError: they could not be sent.
        """
        async with self.failing_as(_name(commands[0]), within=within, maybe_done=True):
            await self._write(self.raw.pack_commands(commands))

    async def answers(self, commands: Sequence[Sequence[Argument]], *, within: float) -> list[Any]:
        """Return the answers to commands that were sent, as `pipeline` does."""
        answers: list[Any] = []
        try:
            async with self.failing_as(_name(commands[0]), within=within, maybe_done=True):
                for command in commands:
                    answers.append(await self._answer(command))  # noqa: PERF401 - those read before a failure count
        except TransportError as error:
            answers.extend([error] * (len(commands) - len(answers)))
        return answers

    async def send(self, *command: Argument, within: float) -> None:
        """Send a command whose answer arrives among the frames that `read` returns."""
        async with self.failing_as(_name(command), within=within, maybe_done=True):
            await self._write(self.raw.pack_command(*command))

    async def read(self, *, within: float | None = None, patience: float | None = None) -> Any:
        """Wait for the next frame that the server sends.

        Args:
            within: seconds after which the connection has failed; ``None`` for as long as it takes.
            patience: seconds after which to return ``None`` and keep the connection.
        """
        async with self.failing_as("reading", within=within, maybe_done=True):
            return await self.raw.read_response(disable_decoding=True, timeout=patience)

    def abort(self) -> None:
        """Tear the socket down at once; whoever reads from it fails."""
        writer = self.raw._writer  # noqa: SLF001 - redis-py can only close in good order, which may wait for the server
        if writer is not None:
            writer.transport.abort()

    async def aclose(self) -> None:
        """Close the socket; idempotent."""
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self.raw.disconnect()
        except (exceptions.RedisError, OSError):  # TimeoutError is an OSError
            pass
        finally:
            self.abort()

    @asynccontextmanager
    async def failing_as(self, doing: str, *, within: float | None, maybe_done: bool) -> AsyncIterator[None]:
        """Turn every failure into ours, and leave no half-used socket behind."""
        try:
            async with asyncio.timeout(within):
                yield
        except (exceptions.RedisError, OSError) as error:
            await self._give_up()
            raise self._connector.failure(error, doing, maybe_done=maybe_done) from None
        except BaseException:
            await self._give_up()
            raise

    async def _write(self, data: list[bytes]) -> None:
        # On a closed one redis-py would connect again, in silence, and asyncio may fail in ways of its own.
        if self.hung_up:
            closed = exceptions.ConnectionError("the connection is closed")
            raise self._connector.failure(closed, "writing", maybe_done=False)
        await self.raw.send_packed_command(data, check_health=False)

    async def _answer(self, command: Sequence[Argument]) -> Any:
        try:
            return await self.raw.read_response(disable_decoding=True)
        except exceptions.ResponseError as error:
            return self._connector.failure(error, _name(command), maybe_done=False)

    async def _give_up(self) -> None:
        self.abort()
        await self.raw.disconnect(nowait=True)


def _pool_of(client_or_url: Redis | str) -> ConnectionPool:
    if isinstance(client_or_url, Redis):
        return client_or_url.connection_pool
    if not isinstance(client_or_url, str):
        kind = f"{type(client_or_url).__module__}.{type(client_or_url).__name__}"
        raise InvalidOption("client_or_url", f"needs a redis.asyncio.Redis client or a URL, not a {kind}")
    if not client_or_url.startswith(_SCHEMES):
        raise InvalidOption("client_or_url", f"a URL must start with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}")
    try:
        return ConnectionPool.from_url(client_or_url)
    except (ValueError, TypeError):  # their messages can quote parts of the URL
        raise InvalidOption(
            "client_or_url", "is no valid Redis URL; percent-encode special characters in user and password"
        ) from None


def _name(command: Sequence[Argument]) -> str:
    word = command[0]
    return word.decode() if isinstance(word, bytes) else str(word)


def _address(options: dict[str, Any]) -> str:
    host, port = _host(options)
    if "path" in options:
        return f"unix:{host}"
    return f"sentinel service {host!r}" if port is None else f"{host}:{port}"


def _host(options: dict[str, Any]) -> tuple[str, int | None]:
    """Return the host and port of a server; the path of its socket, or its name at the Sentinel, and ``None``."""
    if "path" in options:
        return options["path"], None
    if "connection_pool" in options:
        return options["connection_pool"].service_name, None
    return options.get("host", "localhost"), options.get("port", 6379)
