"""What a client or a URL says about where to connect, and how. A client is read and left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Connection as TcpConnection
from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.handover import unsupported
from jwt_events.transport._redis.slots import Remap
from jwt_events.transport._redis.survey import Address
from jwt_events.transport._redis.url import (
    SentinelUrl,
    canonical_url,
    cluster_url,
    is_cluster_url,
    is_sentinel_url,
    sentinel_url,
)

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

# What a cluster's client keeps among the options of its connections for itself; the last asks a node to be read from
# although it is a replica.
_CLIENT_OPTIONS = ("connection_class", "max_connections", "response_callbacks", "redis_connect_func")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What a client or a URL says.

    Attributes:
        connection_class: the class of redis-py's connections.
        options: the arguments of that class.
        sentinels: clients of the Sentinels to ask; none if no Sentinels are asked.
        seeds: the nodes of a cluster to ask first; none if it is no cluster.
        remap: what leads to the nodes of a cluster, given the addresses that they announce; ``None`` if those do.
        pool: kept alive, as a Sentinel's connections refer to theirs weakly.
    """

    connection_class: Any
    options: Mapping[str, Any] = field(repr=False)
    sentinels: Sequence[Redis] = ()
    seeds: Sequence[Address] = ()
    remap: Remap | None = None
    pool: ConnectionPool | None = None

    @classmethod
    def read(cls, client_or_url: Redis | RedisCluster | str) -> ClientOptions:
        """Read a client or a URL.

        Raises:
            InvalidOption: it is neither, or cannot be used. The message never repeats a URL.
        """
        if isinstance(client_or_url, RedisCluster):
            return cls._of_cluster(client_or_url)
        if isinstance(client_or_url, Redis):
            return cls._of_pool(client_or_url.connection_pool)
        if not isinstance(client_or_url, str):
            cls_of = type(client_or_url)
            kind = cls_of.__name__ if cls_of.__module__ == "builtins" else f"{cls_of.__module__}.{cls_of.__name__}"
            needed = "a Redis or RedisCluster client of redis.asyncio, or a URL"
            raise InvalidOption("client_or_url", f"needs {needed}, not {kind}")
        try:
            if is_cluster_url(client_or_url):
                return cls._of_cluster_url(client_or_url)
            if is_sentinel_url(client_or_url):
                return cls._of_pool(_sentinel_pool(sentinel_url(client_or_url)))
            return cls._of_pool(ConnectionPool.from_url(canonical_url(client_or_url)))
        except InvalidOption:
            raise
        except (ValueError, TypeError):  # their messages can quote parts of the URL
            raise InvalidOption("client_or_url", "is no valid Redis URL: an option in it has no such value") from None

    @classmethod
    def _of_pool(cls, pool: ConnectionPool) -> ClientOptions:
        if not (hasattr(pool, "connection_class") and hasattr(pool, "connection_kwargs")):
            raise InvalidOption("client_or_url", str(unsupported(type(pool), "does not tell how it connects")))
        return cls(pool.connection_class, _without(pool.connection_kwargs), _sentinels_of(pool), pool=pool)

    @classmethod
    def _of_cluster(cls, client: RedisCluster) -> ClientOptions:
        try:
            found: Mapping[str, Any] = client.get_connection_kwargs()
            nodes = client.nodes_manager
            seeds = [(node.host, int(node.port)) for node in nodes.startup_nodes.values()]
            remap = nodes.address_remap
        except (AttributeError, TypeError, ValueError):
            lack = "does not tell how it connects"
            raise InvalidOption("client_or_url", str(unsupported(type(client), lack))) from None
        options = _without(found, *_CLIENT_OPTIONS)
        return cls(found.get("connection_class", TcpConnection), options, seeds=seeds, remap=remap)

    @classmethod
    def _of_cluster_url(cls, text: str) -> ClientOptions:
        url = cluster_url(text)
        found = ConnectionPool.from_url(url.server)
        options = _without(found.connection_kwargs, "host", "port")
        return cls(found.connection_class, options, seeds=url.seeds)

    @property
    def place(self) -> tuple[str, int | None]:
        """The host and port of a server; the path of its socket, or its name at the Sentinel, and ``None``."""
        options = self.options
        if self.seeds:
            return self.seeds[0]
        if "path" in options:
            return options["path"], None
        if "connection_pool" in options:
            return options["connection_pool"].service_name, None
        return options.get("host", "localhost"), options.get("port", 6379)

    @property
    def address(self) -> str:
        """The server, as messages name it."""
        host, port = self.place
        if self.seeds:
            return f"cluster {','.join(address_of(seed) for seed in self.seeds)}"
        if "path" in self.options:
            return f"unix:{host}"
        return f"sentinel service {host!r}" if port is None else address_of((host, port))


def address_of(place: Address) -> str:
    """Return a host and port as messages name them."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _without(options: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return {name: value for name, value in options.items() if name not in _IGNORED_OPTIONS and name not in names}


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


def _sentinels_of(pool: ConnectionPool) -> Sequence[Redis]:
    """Return the clients of the Sentinels behind a pool; nothing if there are none."""
    if not isinstance(pool, SentinelConnectionPool):
        return ()
    if not pool.is_master:
        raise InvalidOption("client_or_url", "is a client of the replicas of a service; use master_for()")
    sentinels: Sequence[Redis] = pool.sentinel_manager.sentinels
    return sentinels


def accepted_options(connection_class: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return options of which connections can be made, and with which they are made faster.

    Without ``driver_info`` redis-py, from 8.0 on, reads its own version from a file for each connection, which takes
    three times as long as all else.

    Raises:
        Exception: of redis-py, as there is an option that it does not accept.
    """
    sample = connection_class(**options)
    try:
        connection_class(**(more := {**options, "driver_info": sample.driver_info}))
    except (AttributeError, TypeError):  # an older redis-py, or a class of the application
        return options
    return more
