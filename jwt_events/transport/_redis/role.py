"""What a server says of its role. Pure: no I/O, no clock.

After a failover the old primary lives on as a replica, behind the same connection and for a while behind the same name.
A replica takes no events, delivers those of its primary late or, cut off from it, never, and replies to all else as
before. So the role is asked for by all who depend on the primary: by readers of a stream with INFO, which tells the
history of the server, too; by Pub/Sub and publishers with HELLO, for which no user needs a right. A server that is not
known to be the primary is not used as one.

Sources: https://redis.io/docs/latest/commands/hello/ and https://redis.io/docs/latest/commands/info/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.proof import Proof, Replication

HELLO: Command = ("HELLO",)
"""Asks for the role, and changes nothing."""

HELLO_3: Command = ("HELLO", 3)
"""Asks for the role, and switches to RESP3, in which a connection that is subscribed may send any command."""

ROLE_INTERVAL = 1.0
"""Seconds for which a role that was told is relied on, at most."""


def role_of_hello(reply: Any) -> str:
    """Parse the reply to HELLO; empty if it names no role.

    Raises:
        TransportError: no reply, or an error reply; or that of a Sentinel.
    """
    if isinstance(reply, TransportError):
        raise reply
    if _fields(reply).get(b"mode") == b"sentinel":
        raise _is_sentinel()
    role = _fields(reply).get(b"role")
    return role.decode(errors="replace") if isinstance(role, bytes) else ""


def is_in_cluster(reply: Any) -> bool:
    """Whether the reply to HELLO says that the server is a node of a cluster."""
    return bool(_fields(reply).get(b"mode") == b"cluster")


def version_of_hello(reply: Any) -> int:
    """Return the major version that the reply to HELLO names; 0 if it names none."""
    version = _fields(reply).get(b"version")
    major = version.partition(b".")[0] if isinstance(version, bytes) else b""
    return int(major) if major.isdigit() and len(major) < 9 else 0


def replication_of(reply: Any) -> Replication:
    """Parse the reply to INFO replication.

    Raises:
        TransportError: no reply, or an error reply; the message names the right that is missing.
    """
    if isinstance(reply, ServerRefused) and not reply.retryable:
        problem = f"{reply}; a reader needs the right +info, to tell the primary from a replica"
        raise ServerRefused(problem, code=reply.code)
    if isinstance(reply, TransportError):
        raise reply
    return Replication.parse(parse_info(reply))


def parse_info(*replies: Any) -> dict[str, str]:
    """Return the fields of replies to INFO; what is not one has none."""
    lines = [
        line for reply in replies if isinstance(reply, bytes) for line in reply.decode(errors="replace").splitlines()
    ]
    return dict(line.split(":", 1) for line in lines if ":" in line)


def is_node(fields: Mapping[str, str]) -> bool:
    """Whether the fields of INFO server are those of a node of a cluster; Valkey has another name for the mode."""
    return "cluster" in (fields.get("redis_mode"), fields.get("server_mode"))


def require_server(fields: Mapping[str, str]) -> None:
    """Check that the fields of INFO server are not those of a Sentinel.

    Raises:
        ServerRefused: they are.
    """
    if "sentinel" in (fields.get("redis_mode"), fields.get("server_mode")):
        raise _is_sentinel()


def _is_sentinel() -> ServerRefused:
    return ServerRefused("a Sentinel replied, not a server: use redis+sentinel://h1,h2,h3/service", code="ERR")


class RoleRule:
    """Which servers a sender accepts, by their replies to HELLO.

    Args:
        address: where the server is.
        is_needed: whether a server that does not tell its role is refused. Only one that refuses to write as a replica
            can do without.
    """

    def __init__(self, address: str, *, is_needed: bool) -> None:
        self._address = address
        self.is_needed = is_needed

    def check(self, reply: Any, *, maybe_done: bool) -> bool:
        """Return whether the role is known.

        Raises:
            TransportError: the server is a replica; or did not tell, and that is needed.
        """
        if isinstance(reply, ServerRefused) and not reply.retryable and not self.is_needed:
            return False
        role = role_of_hello(reply)
        if role or self.is_needed:
            Proof(self._address, Replication(role)).require(maybe_done=maybe_done)
        return role != ""


def _fields(reply: Any) -> Mapping[Any, Any]:
    """Return the fields of a map, which is an array of names and values before RESP3; empty if it is neither."""
    if isinstance(reply, dict):
        return reply
    if isinstance(reply, list) and all(isinstance(name, bytes) for name in reply[::2]):
        return dict(zip(reply[::2], reply[1::2], strict=False))
    return {}
