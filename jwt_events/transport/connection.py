"""Connections to the server, for the command line and the embedded server, which need more than a transport offers.

A `Connector` opens connections with the options of a client or URL; a `Connection` is one socket, which never retries.
"""

from jwt_events.transport._redis.client_options import address_of
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.membership import MEMBERSHIP, Membership
from jwt_events.transport._redis.proof import MAX_LAG, Replication
from jwt_events.transport._redis.replies import key_of
from jwt_events.transport._redis.role import is_node, parse_info
from jwt_events.transport._redis.survey import Address, SentinelReply, Survey
from jwt_events.transport._redis.url import canonical_url, server_url

__all__ = [
    "MAX_LAG",
    "MEMBERSHIP",
    "Address",
    "Command",
    "Connection",
    "Connector",
    "Membership",
    "Replication",
    "SentinelReply",
    "Survey",
    "address_of",
    "canonical_url",
    "is_node",
    "key_of",
    "parse_info",
    "server_url",
]
