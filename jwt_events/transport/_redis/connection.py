"""The door to redis-py: connections of the library's own.

redis-py's clients retry and reconnect by themselves, in silence: a lost reply repeats an XADD, a lost connection
resubscribes and what was sent meanwhile is gone. So nothing here uses its clients or its pools. A `Connection` is one
socket: it never retries, never reconnects, waits no longer than it is told, and after any failure is closed for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jwt_events.errors import InvalidOption, TransportError
from jwt_events.transport._redis.protocol import Argument, Command, ErrorReply, Request, RespProtocol
from jwt_events.transport._redis.replies import ReplyDecoder

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
        secrets = [str(options[name]) for name in ("password", "ssl_password") if options.get(name)]
        self.interpreter: ReplyDecoder = ReplyDecoder(self.address, destination, secrets=secrets)
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
        raw = self._connection_class(**self._options)
        try:
            async with asyncio.timeout(within):
                await raw.connect()  # type: ignore[no-untyped-call]  # redis-py does not annotate it
            return Connection(RespProtocol(_handed_over(raw)), self.interpreter)
        except Exception as error:  # noqa: BLE001 - a client's credential provider is the application's code
            await _give_up(raw)
            raise self.interpreter.failure(error, "connecting", maybe_done=False) from None
        except BaseException:
            await _give_up(raw)
            raise


class Connection:
    """One socket to the server. Made by `Connector.connect`.

    Any task may ask, whatever others wait for; answers come in the order of the questions. Whoever waits for an answer
    here and is cancelled, or waits too long, closes the socket: a server that does not answer one will not answer the
    next.
    """

    def __init__(self, wire: RespProtocol, interpreter: ReplyDecoder) -> None:
        self.wire = wire
        self._interpreter = interpreter

    @property
    def hung_up(self) -> bool:
        """Whether it is closed, by either side, as far as this process has been told."""
        return self.wire.is_lost

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

    async def pipeline(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """Send commands in one go and return their answers, an error in the place of each that was refused.

        If the connection fails in between, the places of all unanswered commands hold that error.

        Args:
            commands: each a sequence of words.
            within: seconds for all of them.
        """
        try:
            question = self.ask(commands)
        except TransportError as error:
            return [error] * len(commands)
        return await self.answers(question, within=within)

    def ask(self, commands: Sequence[Command]) -> Request:
        """Send commands, and do not wait for their answers.

        Raises:
            TransportError: they could not be sent.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        question = Request(commands, loop)
        self.wire.ask(question, loop.time())
        return question

    async def answers(self, question: Request, *, within: float) -> list[Any]:
        """Return the answers to commands that were sent, as `pipeline` does."""
        if not question.settled.done():
            try:
                async with asyncio.timeout(within):
                    await question.settled
            except TimeoutError as error:
                self.wire.fail(error)
            except BaseException:
                self.wire.abort()
                raise
        return self._interpreter.read(question)

    def send(self, *command: Argument) -> None:
        """Send a command whose answer arrives among the frames.

        Raises:
            TransportError: it could not be sent.
        """
        self._check_open()
        self.wire.send([command])

    async def frames(
        self, *, within: float | None = None, patience: float | None = None, most: int = 1_000
    ) -> list[Any]:
        """Wait for frames that the server sends, and return what is there; nothing if patience ended first.

        Args:
            within: seconds after which the connection has failed; ``None`` for as long as it takes.
            patience: seconds after which to return, and keep the connection.
            most: how many to return.

        Raises:
            TransportError: the connection failed, or the server sent an error.
        """
        if not self.wire.frames:
            try:
                async with asyncio.timeout(patience if within is None else within):
                    await self.wire.news()
            except TimeoutError as error:
                if within is None:
                    return []
                self.wire.fail(error)
        frames = self.wire.take_frames(most)
        if not frames:
            failure = self.wire.failure or exceptions.ConnectionError("the connection is closed")
            raise self._interpreter.failure(failure, "reading", maybe_done=True)
        if type(frames[0]) is ErrorReply:
            raise self._interpreter.refusal(frames[0], "reading")
        return frames

    def abort(self) -> None:
        """Tear the socket down at once; whoever waits for an answer gets none."""
        self.wire.abort()

    async def aclose(self) -> None:
        """Close the socket; idempotent."""
        await self.wire.aclose(within=_CLOSE_WITHIN)

    def _check_open(self) -> None:
        if self.hung_up:
            closed = exceptions.ConnectionError("the connection is closed")
            raise self._interpreter.failure(closed, "writing", maybe_done=False)


def _handed_over(raw: AbstractConnection) -> asyncio.StreamWriter:
    """Take the socket from a connection of redis-py, which has no way to hand it over."""
    writer = raw._writer  # noqa: SLF001 - see above
    assert writer is not None  # noqa: S101 - just connected
    raw._reader = raw._writer = None  # noqa: SLF001 - what it does not have it can neither use nor close
    return writer


async def _give_up(raw: AbstractConnection) -> None:
    """Leave no half-open socket behind."""
    writer = raw._writer  # noqa: SLF001 - redis-py can only close in good order, which may wait for the server
    if writer is not None:
        writer.transport.abort()
    await raw.disconnect(nowait=True)


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
