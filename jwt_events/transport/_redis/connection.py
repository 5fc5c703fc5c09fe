"""Connections of the library's own, opened by redis-py.

redis-py's clients retry and reconnect by themselves and do not report it: a lost reply repeats an XADD, and a lost
connection resubscribes although what was sent meanwhile is gone. So nothing here uses its clients or its pools. A
`Connection` is one socket: it never retries, never reconnects, waits no longer than it is told, and after any failure
is closed for good.

Every reply is parsed by the shape that its command has (see `shapes`); one that does not fit closes the socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import Connection as TcpConnection
from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from jwt_events._internal.cancellation import noticing_cancellation, timeout
from jwt_events.errors import InvalidOption, TransportError
from jwt_events.transport._redis.handover import abort, check_methods, take_socket, unsupported
from jwt_events.transport._redis.protocol import (
    UNBOUNDED,
    Argument,
    Bounds,
    Command,
    ErrorReply,
    ReplyTooLarge,
    Request,
    RespProtocol,
)
from jwt_events.transport._redis.replies import ReplyDecoder, ReplyParser, unchanged
from jwt_events.transport._redis.sentinels import Sentinels
from jwt_events.transport._redis.survey import Address
from jwt_events.transport._redis.url import SentinelUrl, canonical_url, is_sentinel_url, sentinel_url

# Longest wait for a socket to close in good order before it is torn down.
_CLOSE_WITHIN = 1.0

# Seconds that are left for connecting, however long the Sentinels took.
_MIN_CONNECT = 0.5

# Options of a client for its own retries, and objects that a pool shares between its connections. None of them may
# affect, or be changed by, a connection of this library.
_IGNORED_OPTIONS = (
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "retry_on_error",
    "retry_on_timeout",
)


class Connector:
    """Opens connections with the options of a client or URL; never uses or changes the client.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` (also one made by a Sentinel), or a ``redis://``, ``rediss://``,
            ``unix://`` or ``redis+sentinel://`` URL (see `canonical_url` and `sentinel_url`).
        destination: the channel or key that error messages name.

    Raises:
        InvalidOption: ``client_or_url`` is neither. The message never repeats a URL, which may hold a password.
    """

    def __init__(self, client_or_url: Redis | str, *, destination: str = "") -> None:
        self._pool = pool = _pool_of(client_or_url)  # kept alive, as a Sentinel's connections refer to theirs weakly
        if not (hasattr(pool, "connection_class") and hasattr(pool, "connection_kwargs")):
            raise InvalidOption("client_or_url", str(unsupported(type(pool), "does not tell how it connects")))
        options = {name: value for name, value in pool.connection_kwargs.items() if name not in _IGNORED_OPTIONS}
        self.destination = destination
        self.host: str
        self.port: int | None
        self.host, self.port = _host(options)
        self.address: str = _address(options)
        self.database: int = int(options.get("db") or 0)
        secrets = [str(options[name]) for name in ("password", "ssl_password") if options.get(name)]
        self.decoder: ReplyDecoder = ReplyDecoder(self.address, destination, secrets=secrets)
        self._connection_class = pool.connection_class
        self._sentinels = _sentinels_of(pool)
        self._options = options | {
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            "socket_timeout": None,  # every wait has a deadline of its own
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

    def sentinels(self) -> Sentinels | None:
        """Return the Sentinels of the service, to be asked and closed by the caller; ``None`` if there are none."""
        if not self._sentinels:
            return None
        return Sentinels(self.host, {connector.address: connector for connector in self._sentinels})

    async def connect(self, *, within: float, sentinels: Sentinels | None = None) -> Connection:
        """Open an authenticated connection; behind Sentinels, to the primary that a majority of them names.

        Args:
            within: seconds for all of it together.
            sentinels: those to ask; ``None`` to ask over connections that are closed afterwards.

        Raises:
            TransportError: it could not be opened; the message names the server and holds no password.
        """
        began, place = time.monotonic(), None
        if self._sentinels:
            place = await self._locate(sentinels)
            within = max(_MIN_CONNECT, within - (time.monotonic() - began))
        raw: Any = self._connection_class(**self._options)
        check_methods(raw)
        try:
            async with timeout(within):
                with noticing_cancellation():  # redis-py, and an application's credential provider, may swallow one
                    if place is None:
                        await raw.connect()
                    else:
                        await raw.connect_to(place)
            return Connection(RespProtocol(take_socket(raw)), self.decoder, place)
        except Exception as error:  # noqa: BLE001 - a client's credential provider is the application's code
            await abort(raw)
            raise self.decoder.failure(error, "connecting", maybe_done=False) from None
        except BaseException:
            await abort(raw)
            raise

    async def connect_at(self, place: Address, *, within: float) -> Connection:
        """Open a connection to a server at another place, with the same options.

        Args:
            place: its host and port.
            within: seconds for connecting and authenticating together.

        Raises:
            TransportError: it could not be opened.
        """
        options = {name: value for name, value in self._options.items() if name not in {"connection_pool", "path"}}
        is_tls = issubclass(self._connection_class, SSLConnection)
        raw: Any = (SSLConnection if is_tls else TcpConnection)(**options | {"host": place[0], "port": place[1]})
        try:
            async with timeout(within):
                with noticing_cancellation():
                    await raw.connect()
            return Connection(RespProtocol(take_socket(raw)), self.decoder, place)
        except Exception as error:  # noqa: BLE001 - as in `connect`
            await abort(raw)
            raise self.decoder.failure(error, "connecting", maybe_done=False) from None
        except BaseException:
            await abort(raw)
            raise

    async def _locate(self, sentinels: Sentinels | None) -> Address:
        if sentinels is not None:
            return await sentinels.locate()
        own = self.sentinels()
        assert own is not None  # noqa: S101 - for the type checker: it is called only where there are some
        try:
            return await own.locate()
        finally:
            await own.aclose()


class Connection:
    """One socket to the server. Made by `Connector.connect`.

    Any task may send at any time; replies come in the order of the requests. A caller that is cancelled while it waits
    for a reply here, or waits too long, closes the socket: a server that does not reply to one request will not reply
    to the next.
    """

    def __init__(self, protocol: RespProtocol, decoder: ReplyDecoder, place: Address | None = None) -> None:
        self.protocol = protocol
        self.place = place
        """Host and port, as the Sentinels name them; ``None`` without Sentinels."""
        self.peer: Address | None = place or protocol.peer
        """Host and port of the server, or of what stands before it; ``None`` on a unix socket."""
        self._decoder = decoder

    def decode(self, request: Request) -> list[Any]:
        """Return the replies to a request, each checked by the shape of its command's replies."""
        return self._decoder.decode(request)

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed, by either side, as far as this process has been told."""
        return self.protocol.is_closed

    @property
    def was_cut_off(self) -> bool:
        """Whether the socket was closed because a reply had more bytes than its request allows, or took too long."""
        return isinstance(self.protocol.failure, (ReplyTooLarge, TimeoutError))

    async def call(self, *command: Argument, within: float, bounds: Bounds = UNBOUNDED) -> Any:
        """Send one command and return its reply.

        Args:
            command: its words.
            within: seconds until the reply must have arrived.
            bounds: as for `send`.

        Raises:
            TransportError: no reply, or an error reply.
        """
        (reply,) = await self.execute_many([command], within=within, bounds=bounds)
        if isinstance(reply, TransportError):
            raise reply
        return reply

    async def execute_many(
        self, commands: Sequence[Command], *, within: float, bounds: Bounds = UNBOUNDED
    ) -> list[Any]:
        """Send commands together and return their replies, an error in the place of each that was refused.

        If the connection fails in between, the places of all commands without a reply hold that error.

        Args:
            commands: each a sequence of words.
            within: seconds until all replies must have arrived.
            bounds: as for `send`.
        """
        try:
            request = self.send(commands, bounds=bounds)
        except TransportError as error:
            return [error] * len(commands)
        return await self.replies(request, within=within)

    def send(self, commands: Sequence[Command], *, bounds: Bounds = UNBOUNDED) -> Request:
        """Send commands without waiting for their replies.

        Args:
            commands: each a sequence of words.
            bounds: how much of the replies is taken.

        Raises:
            TransportError: they could not be sent.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        request = Request(commands, loop, bounds=bounds)
        self.protocol.send(request, loop.time())
        return request

    async def replies(self, request: Request, *, within: float) -> list[Any]:
        """Wait for the replies to a request and return them as `execute_many` does."""
        if not request.settled.done():
            try:
                async with asyncio.timeout(within):
                    await request.settled
            except TimeoutError as error:
                self.protocol.fail(error)
            except BaseException:
                self.protocol.abort()
                raise
        return self._decoder.decode(request)

    def write(self, *command: Argument) -> None:
        """Send a command whose reply arrives among the pushed messages.

        Raises:
            TransportError: it could not be sent.
        """
        self._check_open()
        self.protocol.write([command])

    async def pushed(
        self,
        *,
        within: float | None = None,
        poll_timeout: float | None = None,
        maximum: int = 1_000,
        parse: ReplyParser = unchanged,
    ) -> list[Any]:
        """Wait for pushed messages and return those that have arrived.

        None if ``poll_timeout`` passed first, or if a reply to a request arrived.

        Args:
            within: seconds after which the connection counts as failed; ``None`` for no such limit.
            poll_timeout: seconds after which to return an empty list and keep the connection; ``None`` for no such
                limit. Ignored if ``within`` is given.
            maximum: how many messages to return at most.
            parse: the parser of each message.

        Raises:
            TransportError: the connection failed, or the server sent an error, or something that is no such message.
        """
        if not self.protocol.pushed:
            try:
                async with asyncio.timeout(poll_timeout if within is None else within):
                    await self.protocol.wait_for_data()
            except TimeoutError as error:
                if within is None:
                    return []
                self.protocol.fail(error)
        messages = self.protocol.take_pushed(maximum)
        if not messages and not self.is_closed:
            return []
        if not messages:
            failure = self.protocol.failure or exceptions.ConnectionError("the connection is closed")
            raise self._decoder.failure(failure, "reading", maybe_done=True)
        if type(messages[0]) is ErrorReply:
            raise self._decoder.error_reply(messages[0], "reading")
        try:
            return list(map(parse, messages))
        except Exception:  # noqa: BLE001 - the server, or what stands for it, may send anything
            self.protocol.mark_out_of_sync()
            failure = self.protocol.failure or exceptions.ConnectionError()
            raise self._decoder.failure(failure, "reading", maybe_done=True) from None

    def abort(self) -> None:
        """Close the socket at once; requests without a reply fail."""
        self.protocol.abort()

    async def aclose(self) -> None:
        """Close the socket in good order; idempotent."""
        await self.protocol.aclose(within=_CLOSE_WITHIN)

    def _check_open(self) -> None:
        if self.is_closed:
            closed = exceptions.ConnectionError("the connection is closed")
            raise self._decoder.failure(closed, "writing", maybe_done=False)


def _pool_of(client_or_url: Redis | str) -> ConnectionPool:
    if isinstance(client_or_url, Redis):
        return client_or_url.connection_pool
    if not isinstance(client_or_url, str):
        kind = f"{type(client_or_url).__module__}.{type(client_or_url).__name__}"
        raise InvalidOption("client_or_url", f"needs a redis.asyncio.Redis client or a URL, not a {kind}")
    try:
        if is_sentinel_url(client_or_url):
            return _sentinel_pool(sentinel_url(client_or_url))
        return ConnectionPool.from_url(canonical_url(client_or_url))
    except InvalidOption:
        raise
    except (ValueError, TypeError):  # their messages can quote parts of the URL
        raise InvalidOption("client_or_url", "is no valid Redis URL: an option in it has no such value") from None


def _sentinel_pool(url: SentinelUrl) -> ConnectionPool:
    """Return the pool that redis-py makes for a service; who connects to the servers is no user of the Sentinels."""
    found = ConnectionPool.from_url(url.server)
    server = {name: value for name, value in found.connection_kwargs.items() if name not in {"host", "port"}}
    server["ssl"] = issubclass(found.connection_class, SSLConnection)
    own = {name: value for name, value in server.items() if name.startswith(("ssl", "socket_"))}
    own |= {"username": url.username, "password": url.password}
    manager = Sentinel(url.sentinels, sentinel_kwargs=own, **server)  # type: ignore[no-untyped-call]  # not annotated
    pool: ConnectionPool = manager.master_for(url.service).connection_pool
    return pool


def _sentinels_of(pool: ConnectionPool) -> Sequence[Connector]:
    """Return what connects to the Sentinels behind a pool; nothing if there are none."""
    if not isinstance(pool, SentinelConnectionPool):
        return ()
    if not pool.is_master:
        raise InvalidOption("client_or_url", "is a client of the replicas of a service; use master_for()")
    return [Connector(client) for client in pool.sentinel_manager.sentinels]


def _address(options: dict[str, Any]) -> str:
    host, port = _host(options)
    if "path" in options:
        return f"unix:{host}"
    if port is None:
        return f"sentinel service {host!r}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(options: dict[str, Any]) -> tuple[str, int | None]:
    """Return the host and port of a server; the path of its socket, or its name at the Sentinel, and ``None``."""
    if "path" in options:
        return options["path"], None
    if "connection_pool" in options:
        return options["connection_pool"].service_name, None
    return options.get("host", "localhost"), options.get("port", 6379)
