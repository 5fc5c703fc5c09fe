"""Connections of the library's own, opened by redis-py.

redis-py's clients retry and reconnect by themselves and do not report it: a lost reply repeats an XADD, and a lost
connection resubscribes although what was sent meanwhile is gone. So nothing here uses its clients or its pools. A
`Connection` is one socket: it never retries, never reconnects, waits no longer than it is told, and after any failure
is closed for good.

Every reply is parsed by the shape that its command has (see `shapes`); one that does not fit closes the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Self

from loguru import logger
from redis import exceptions
from redis.asyncio import Connection as TcpConnection
from redis.asyncio import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff

from jwt_events._internal.cancellation import noticing_cancellation, timeout
from jwt_events.errors import ConnectionFailed, InvalidOption, TransportError
from jwt_events.transport._redis.client_options import ClientOptions, accepted_options, address_of
from jwt_events.transport._redis.commands import Argument, Commands
from jwt_events.transport._redis.deadlines import Deadlines
from jwt_events.transport._redis.forked import check_loop
from jwt_events.transport._redis.handover import abort, check_methods, take_socket
from jwt_events.transport._redis.nodes import Nodes
from jwt_events.transport._redis.owner import Owner, SentinelService
from jwt_events.transport._redis.protocol import UNBOUNDED, Bounds, ErrorReply, ReplyTooLarge, Request, RespProtocol
from jwt_events.transport._redis.replies import ReplyDecoder, ReplyParser, unchanged
from jwt_events.transport._redis.sentinels import Sentinels
from jwt_events.transport._redis.survey import Address
from jwt_events.transport._redis.topology import OneServer, Topology

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

# Rounds of the event loop after a deadline in which is read what arrived before it, while the process was busy.
_LAST_ROUNDS = 16

# Longest wait for a socket to close in good order before it is torn down.
_CLOSE_WITHIN = 1.0


class Connector:
    """Opens connections with the options of a client or URL; never uses or changes the client.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` (also one made by a Sentinel), a ``redis.asyncio.RedisCluster``, or a
            ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://`` URL (see
            `canonical_url`, `sentinel_url` and `cluster_url`).
        destination: the channel or key that error messages name; in a cluster, connections lead to its owner.

    Attributes:
        topology: where keys are, as far as is known.
        check: raises `InvalidOption` if a cluster cannot keep the keys that belong together; called when one is found.

    Raises:
        InvalidOption: ``client_or_url`` is none of these. The message never repeats a URL, which may hold a password.
    """

    def __init__(self, client_or_url: Redis | RedisCluster | str, *, destination: str = "") -> None:
        self._client = found = ClientOptions.read(client_or_url)
        self.destination = destination
        self.host: str
        self.port: int | None
        self.host, self.port = found.place
        self.address: str = found.address
        self.database: int = int(found.options.get("db") or 0)
        self.topology: Topology = Nodes(found.seeds, found.remap) if found.seeds else OneServer()
        self.check: Callable[[], None] | None = None
        secrets = [str(found.options[name]) for name in ("password", "ssl_password") if found.options.get(name)]
        self.decoder: ReplyDecoder = ReplyDecoder(self.address, destination, secrets=secrets, on_moved=self.follow)
        self._connection_class = found.connection_class
        self._sentinels = [Connector(client) for client in found.sentinels]
        options = {
            **found.options,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            "socket_timeout": None,  # every wait has a deadline of its own
            "socket_connect_timeout": found.options.get("socket_connect_timeout") or _CLOSE_WITHIN * 5,
            "decode_responses": False,  # one undecodable payload would make every later read fail
            "protocol": 2,  # with 3, redis-py logs pushed payloads, and nothing here needs it
        }
        try:
            self._options = accepted_options(self._connection_class, options)
        except (exceptions.RedisError, TypeError, ValueError):  # without its message, which can quote values
            raise InvalidOption("client_or_url", "has an option that redis-py does not accept") from None

    def __repr__(self) -> str:
        return f"<Connector {self.address}>"

    @property
    def is_cluster(self) -> bool:
        """Whether it leads to the nodes of a cluster."""
        return self.topology.is_cluster

    @property
    def is_server(self) -> bool:
        """Whether it leads to one server, and not to that of a service or cluster."""
        return not self._sentinels and not self.is_cluster

    def beside(self, key: str) -> Self:
        """Return a connector with the same options for another key, which another node of a cluster may own."""
        other = copy(self)
        other.destination = key
        other.decoder = self.decoder.about(key, on_moved=other.follow)
        return other

    def timed_out(self) -> ConnectionFailed:
        """Return the error of what waited for a connection for too long, while one is being opened."""
        return self.topology.timed_out(self)

    def owner(self, *, may_be_replaced: bool = True) -> Owner:
        """Return what says who the owner is, to be asked and closed by the caller; see `Owner.may_be_replaced`."""
        found = SentinelService(self, self.sentinels()) if self._sentinels else Owner(self)
        found.may_be_replaced = may_be_replaced
        return found

    def sentinels(self) -> Sentinels:
        """Return the Sentinels of the service, to be asked and closed by the caller; there may be none."""
        return Sentinels(self.host, {connector.address: connector for connector in self._sentinels})

    def follow(self, *, is_node: bool = True) -> bool:
        """Note that the server is a node of a cluster; return whether that is new: it may not be the owner."""
        if not (is_node and self.is_server):
            return False
        self.topology = Nodes([None if self.port is None else (self.host, self.port)])
        logger.warning("the server is a node of a cluster: use a redis+cluster:// URL", address=self.address)
        return True

    def require_slot(self) -> None:
        """Check that keys which belong together can be used, now that the server may be known to be in a cluster.

        Raises:
            TransportError: a cluster cannot keep them together; another attempt does not change that.
        """
        if self.is_cluster and self.check is not None:
            try:
                self.check()
            except InvalidOption as error:
                raise TransportError(str(error)) from None

    async def connect(self, *, within: float) -> Connection:
        """Open an authenticated connection to the owner of the key, which is asked for over connections of their own.

        Behind Sentinels that is the primary which a majority of them names, in a cluster the node that has the slot.

        Args:
            within: seconds for all of it together.

        Raises:
            TransportError: it could not be opened; the message names the server and holds no password.
        """
        owner = self.owner()
        try:
            return await owner.connect(within=within)
        finally:
            await owner.aclose()

    async def open(
        self, place: Address | None = None, *, within: float, decoder: ReplyDecoder | None = None
    ) -> Connection:
        """Open an authenticated connection to the server at a place, with the same options.

        Args:
            place: its host and port; ``None`` for those of the client or URL.
            within: seconds for connecting and authenticating together.
            decoder: decodes its replies; ``None`` for one of this connector.

        Raises:
            TransportError: it could not be opened; the message names the server and holds no password.
        """
        check_loop()
        if decoder is None:
            decoder = self.decoder if place is None else self.decoder.at(self._address_of(place))
        raw = self._new_connection(place)
        check_methods(raw)
        try:
            async with timeout(within):
                with noticing_cancellation():  # redis-py, and an application's credential provider, may swallow one
                    if isinstance(raw, SentinelManagedConnection) and place is not None:
                        await raw.connect_to(place)  # type: ignore[no-untyped-call]  # not annotated
                    else:
                        await raw.connect()
            return Connection(RespProtocol(take_socket(raw)), decoder, place)
        except Exception as error:  # noqa: BLE001 - a client's credential provider is the application's code
            await abort(raw)
            raise decoder.not_connected(error, tls=isinstance(raw, SSLConnection)) from None
        except BaseException:
            await abort(raw)
            raise

    def _address_of(self, place: Address) -> str:
        """Return a server as messages name it that was named by a node of the cluster, or the Sentinels."""
        return f"{address_of(place)} of {self.address}" if self._sentinels else address_of(place)

    def _new_connection(self, place: Address | None) -> Any:
        cls, options = self._connection_class, self._options
        if place is None or issubclass(cls, SentinelManagedConnection):
            return cls(**options)
        if issubclass(cls, UnixDomainSocketConnection):
            cls, options = TcpConnection, {name: value for name, value in options.items() if name != "path"}
        return cls(**options | {"host": place[0], "port": place[1]})


class Connection:
    """One socket to the server. Made by `Connector.connect`.

    Any task may send at any time; replies come in the order of the requests. A caller that is cancelled while it waits
    for a reply here, or waits too long, closes the socket: a server that does not reply to one request will not reply
    to the next.
    """

    def __init__(self, protocol: RespProtocol, decoder: ReplyDecoder, place: Address | None = None) -> None:
        self.protocol = protocol
        self.place = place
        """Host and port, as the Sentinels or the nodes of a cluster name them; ``None`` if they were not asked."""
        self.peer: Address | None = place or protocol.peer
        """Host and port of the server, or of what stands before it; ``None`` on a unix socket."""
        self._decoder = decoder
        self._deadlines = Deadlines(protocol.loop)

    def decode(self, request: Request) -> list[Any]:
        """Return the replies to a request, each checked by the shape of its command's replies."""
        return self._decoder.decode(request)

    @property
    def address(self) -> str:
        """The server, as messages name it."""
        return self._decoder.address

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed, by either side, as far as this process has been told."""
        return self.protocol.is_closed

    @property
    def was_cut_off(self) -> bool:
        """Whether the socket was closed because a reply had more bytes than its request allows, or took too long."""
        return isinstance(self.protocol.failure, (ReplyTooLarge, TimeoutError))

    @property
    def fell_silent(self) -> bool:
        """Whether the socket was closed because a reply did not come in time, or not before the server was replaced."""
        return isinstance(self.protocol.failure, (TimeoutError, ConnectionAbortedError))

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

    async def execute_many(self, commands: Commands, *, within: float, bounds: Bounds = UNBOUNDED) -> list[Any]:
        """Send commands together and return their replies, an error in the place of each that was refused.

        If the connection fails in between, the places of all commands without a reply hold that error.

        Args:
            commands: each its words, or a template that is filled.
            within: seconds until all replies must have arrived.
            bounds: as for `send`.
        """
        try:
            request = self.send(commands, bounds=bounds)
        except TransportError as error:
            return [error] * len(commands)
        return await self.replies(request, within=within)

    def send(self, commands: Commands, *, bounds: Bounds = UNBOUNDED) -> Request:
        """Send commands without waiting for their replies.

        Args:
            commands: each its words, or a template that is filled.
            bounds: how much of the replies is taken.

        Raises:
            TransportError: they could not be sent.
        """
        self._check_open()
        loop = self.protocol.loop
        request = Request(commands, loop.create_future(), bounds)
        self.protocol.send(request, loop.time())
        return request

    async def replies(self, request: Request, *, within: float) -> list[Any]:
        """Wait for the replies to a request and return them as `execute_many` does."""
        if not request.settled.done():
            try:
                await self._settle(request, within)
            except BaseException:
                self.abort()
                raise
        return self._decoder.decode(request)

    async def _settle(self, request: Request, within: float) -> None:
        protocol = self.protocol
        self._deadlines.wait(request, protocol.loop.time() + within)
        await request.settled
        for _ in range(_LAST_ROUNDS):
            if len(request.replies) == len(request.commands) or protocol.failure is not None:
                return
            await asyncio.sleep(0)
        protocol.fail(TimeoutError())

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
            raise self._decoder.redirected(messages[0], "reading", self.protocol)
        try:
            return list(map(parse, messages))
        except Exception:  # noqa: BLE001 - the server, or what stands for it, may send anything
            self.protocol.mark_out_of_sync()
            failure = self.protocol.failure or exceptions.ConnectionError()
            raise self._decoder.failure(failure, "reading", maybe_done=True) from None

    def abort(self) -> None:
        """Close the socket at once; requests without a reply fail."""
        self._deadlines.close()
        self.protocol.abort()

    async def aclose(self) -> None:
        """Close the socket in good order; idempotent."""
        self._deadlines.close()
        await self.protocol.aclose(within=_CLOSE_WITHIN)

    def _check_open(self) -> None:
        if self.is_closed:
            closed = exceptions.ConnectionError("the connection is closed")
            raise self._decoder.failure(closed, "writing", maybe_done=False)
