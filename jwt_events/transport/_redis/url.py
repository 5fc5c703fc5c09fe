"""The URL of a server, read in one way only. Pure.

A password that is not percent-encoded can end early: what follows an ``@``, ``/``, ``?`` or ``#`` in it is then taken
for a host, a port or a path, and shows up in errors, in logs and at name servers. So what has no single meaning is
refused, and nothing of it is repeated. redis-py gets the rest, with everything encoded that can be.

Source: RFC 3986, https://www.iana.org/assignments/uri-schemes/prov/redis
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import quote, unquote

from jwt_events.errors import InvalidOption

_TCP = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_SCHEMES = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, or with valkey:// or valkeys://"
_SENTINEL = "+sentinel"
_SENTINEL_PORT = 26_379
_CLUSTER = "+cluster"
_CLUSTER_PORT = 6_379

_PLACE = re.compile(r"(?P<host>\[[^\[\]]*\]|[\w.-]+)(?P<port>:[0-9]{1,5})?")
_NUMBER = re.compile(r"[0-9]{1,10}")

# What redis-py takes as objects, and what the URL says elsewhere.
_NO_OPTIONS = frozenset(
    {
        "command_packer",
        "connection_class",
        "credential_provider",
        "encoder_class",
        "host",
        "parser_class",
        "path",
        "port",
        "redis_connect_func",
        "retry",
        "socket_keepalive_options",
    }
)

# What is for the Sentinels alone: who connects to them.
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_ANY_SERVER = "server.invalid"

_ADVICE = "percent-encode special characters in user and password, as %40 for @, %2F for /, %3F for ? and %23 for #"


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The parts of a URL such as ``rediss+sentinel://user:password@h1:26379,h2/service/0?sentinel_password=…``.

    Attributes:
        sentinels: host and port of each Sentinel.
        service: the name of the service.
        server: a URL with all that is for its servers, but with a host that stands for any.
        username: the user at the Sentinels; ``None`` for the default one.
        password: the password of that user; ``None`` for none.
    """

    sentinels: Sequence[tuple[str, int]]
    service: str
    server: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """The parts of a URL such as ``rediss+cluster://user:password@h1:7000,h2:7000``.

    Attributes:
        seeds: host and port of the nodes that are asked first where the others are.
        server: a URL with all that is for each node, but with a host that stands for any.
    """

    seeds: Sequence[tuple[str, int]]
    server: str = field(repr=False)


def is_sentinel_url(url: str) -> bool:
    """Whether a URL leads to Sentinels."""
    return _has_suffix(url, _SENTINEL)


def is_cluster_url(url: str) -> bool:
    """Whether a URL leads to a cluster."""
    return _has_suffix(url, _CLUSTER)


def _has_suffix(url: str, suffix: str) -> bool:
    scheme = url.partition("://")[0]
    return scheme.endswith(suffix) and scheme.removesuffix(suffix) in _TCP


def server_url(url: str) -> str:
    """Return the URL with all that is for each server that a URL leads to, as redis-py understands it.

    Raises:
        InvalidOption: it has another scheme, or a part of it can be read in more than one way.
    """
    if is_sentinel_url(url):
        return sentinel_url(url).server
    return cluster_url(url).server if is_cluster_url(url) else canonical_url(url)


def cluster_url(url: str) -> ClusterUrl:
    """Return the parts of the URL of a cluster.

    Raises:
        InvalidOption: it names no node, or a part of it can be read in more than one way; or it names a database other
            than 0, as a cluster has no other.
    """
    scheme, _, rest = url.partition("://")
    location, mark, query = rest.partition("?")
    authority, slash, database = location.partition("/")
    userinfo, at, places = authority.rpartition("@")
    if "#" in query or "@" in query:
        raise _invalid()
    server = canonical_url(
        f"{scheme.removesuffix(_CLUSTER)}://{userinfo}{at}{_ANY_SERVER}{slash}{database}{mark}{query}"
    )
    options = (option.partition("=") for option in query.split("&"))
    if any(int(number or 0) for number in (database, *(value for name, _, value in options if name == "db"))):
        raise InvalidOption("client_or_url", "names a database, and a cluster has none but 0")
    return ClusterUrl(_places(places, "a node", _CLUSTER_PORT), server)


def sentinel_url(url: str) -> SentinelUrl:
    """Return the parts of the URL of a service behind Sentinels.

    Raises:
        InvalidOption: it names no Sentinel or no service, or a part of it can be read in more than one way.
    """
    scheme, _, rest = url.partition("://")
    location, mark, query = rest.partition("?")
    authority, _, path = location.partition("/")
    userinfo, at, places = authority.rpartition("@")
    service, slash, database = path.partition("/")
    if not re.fullmatch(r"[\w.%-]+", service):
        raise _invalid("it needs the name of the service behind the host, as in redis+sentinel://h1,h2,h3/service")
    own = {name: value for name, _, value in (option.partition("=") for option in query.split("&"))}
    kept = "&".join(option for option in query.split("&") if option.partition("=")[0] not in _SENTINEL_OPTIONS)
    if any(query.count(f"{name}=") > 1 or own.get(name) == "" for name in _SENTINEL_OPTIONS):
        raise _invalid("an option in it has no value, or two")
    if "#" in query or "@" in query:
        raise _invalid()
    server = (
        f"{scheme.removesuffix(_SENTINEL)}://{userinfo}{at}{_ANY_SERVER}{slash}{database}{mark if kept else ''}{kept}"
    )
    username, password = (unquote(own[name]) if name in own else None for name in _SENTINEL_OPTIONS)
    sentinels = _places(places, "a Sentinel", _SENTINEL_PORT)
    return SentinelUrl(sentinels, unquote(service), canonical_url(server), username, password)


def _places(places: str, what: str, default_port: int) -> Sequence[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for place in places.split(","):
        _place(place, is_whole=False)
        parts = _PLACE.fullmatch(place)
        if parts is not None:
            found.append((parts["host"].strip("[]"), int((parts["port"] or f":{default_port}")[1:])))
    if len(set(found)) < len(found):
        raise _invalid(f"it names {what} twice")
    return found


def canonical_url(url: str) -> str:
    """Return the URL of a server as redis-py understands it, and as nothing else.

    Raises:
        InvalidOption: it has another scheme, or a part of it can be read in more than one way.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {*_TCP, "unix"}:
        raise InvalidOption("client_or_url", f"a URL must start with {_SCHEMES}")
    if not rest.isprintable() or (" " in rest and scheme != "unix"):
        raise _invalid("it holds a blank or a control character")
    location, _, query = rest.partition("?")
    authority, slash, path = location.partition("/")
    userinfo, at, place = authority.rpartition("@")
    may_hold_at = scheme == "unix" and not at  # the path of a socket, with nothing before it that could end there
    if "#" in rest or "@" in userinfo + query or ("@" in path and not may_hold_at):
        raise _invalid()
    user, colon, password = userinfo.partition(":")
    who = f"{_encoded(user)}{colon}{_encoded(password)}{at}"
    if scheme == "unix":
        where = f"unix://{who}{_socket(place, slash + path)}"
    else:
        where = f"{_TCP[scheme]}://{who}{_place(place, is_whole=not at)}{_database(path)}"
    return where + _options(query)


def _invalid(problem: str = "") -> InvalidOption:
    return InvalidOption("client_or_url", f"is no valid Redis URL{problem and f': {problem}'}; {_ADVICE}")


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="")


def _place(text: str, *, is_whole: bool) -> str:
    """Check host and port; without anything there, the server is that of this machine.

    Args:
        text: what stands there.
        is_whole: whether no user and no password stand before it, which are meant for some server.
    """
    if not text and is_whole:
        return ""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise _invalid("it has no host, or a port that is no number")
    if found["port"] is not None and not 1 <= int(found["port"][1:]) <= 65_535:
        raise _invalid("its port is not between 1 and 65535")
    if found["host"].startswith("["):
        try:
            IPv6Address(unquote(found["host"][1:-1]))
        except ValueError:
            raise _invalid("what stands in brackets is no IPv6 address") from None
    return text


def _database(path: str) -> str:
    if path and not _NUMBER.fullmatch(path):
        raise _invalid("its path is not the number of a database")
    return path and f"/{path}"


def _socket(place: str, path: str) -> str:
    if place or len(path) < 2 or "\0" in unquote(path):
        raise _invalid("it does not name the path of a socket, as in unix:///run/redis.sock")
    return quote(unquote(path))


def _options(query: str) -> str:
    """Check the options; which of them there are, redis-py knows."""
    seen = set[str]()
    for option in query.split("&") if query else ():
        name, _, value = option.partition("=")
        if not name or not value or name in seen:
            raise _invalid("an option in it has no value, or two")
        if name in _NO_OPTIONS:
            raise InvalidOption("client_or_url", "has an option that redis-py does not accept in a URL")
        if name == "db" and not _NUMBER.fullmatch(value):
            raise _invalid("its database is no number")
        seen.add(name)
    return query and f"?{query}"
