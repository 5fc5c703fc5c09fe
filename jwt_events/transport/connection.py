"""Connections to the server, for whoever needs more of it than a transport does: the command line, the embedded server.

A `Connector` makes connections like those of a client or URL; a `Connection` is one socket, which never retries.
"""

from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.protocol import Command

__all__ = ["Command", "Connection", "Connector"]
