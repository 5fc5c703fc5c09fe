"""The epoch of a server, which tells whether entries that it confirmed may have been lost since.

A position alone cannot prove that nothing is missing: a server that was restarted, or replaced by a replica, may have
lost entries that it had confirmed, and entries that it confirms next take the same positions. So a position is trusted
only together with the server's run id, unless the server is configured to lose nothing.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jwt_events._internal.positions import sort_key
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._redis.role import is_node, parse_info, replication_of, require_server

_NEVER_PROMOTED = "0" * 40


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run of a server process, and which of its data can be missing afterwards.

    Attributes:
        run_id: changes whenever the server process does; empty if the server does not say.
        keeps_all: whether entries that it confirmed survive a crash: every write is on disk before it is confirmed, and
            the server was never promoted from a replica. ``False`` if it does not say.
        keeps_nothing: whether it writes nothing to disk and never copied data from another server, so that every entry
            was added in this epoch. ``False`` if it does not say.
        replication: what it says of its role, and of its replicas.
        is_in_cluster: whether it is a node of a cluster.
        began: a time at which it had certainly begun, in milliseconds of its own clock, which positions are made of;
            infinite if it does not say.
    """

    run_id: str = ""
    keeps_all: bool = False
    keeps_nothing: bool = False
    replication: Replication = field(default_factory=Replication)
    is_in_cluster: bool = False
    began: float = math.inf

    def may_lack(self, before: Epoch, *, end: int | None = None) -> bool:
        """Whether an entry that was confirmed in the epoch ``before`` may be missing in this one.

        Args:
            before: the epoch.
            end: how much was ever written in it, as its server said when it had become a replica; ``None`` if it did
                not. A server that took over may say that it has as much.
        """
        if before.run_id == self.run_id != "":
            return self.replication.was_replaced_since(before.replication)
        if before.keeps_all and self.keeps_all:
            return False
        return end is None or not self.replication.has_all_of(before.replication.history, end)

    def may_lack_what_followed(self, position: str, *, is_there: bool) -> bool:
        """Whether an entry confirmed after this position may be missing, for a reader that knows no earlier epoch.

        Args:
            position: that of an entry that was confirmed.
            is_there: whether the server still has that entry.
        """
        if self.keeps_all or (self.keeps_nothing and is_there):
            return False
        return sort_key(position)[0] < self.began

    @classmethod
    def parse(cls, fields: Mapping[str, str], options: Mapping[str, str]) -> Epoch:
        """Make it of the fields of INFO, and of the options that CONFIG GET told."""
        is_original = (
            fields.get("role") == "master" and fields.get("master_replid2", _NEVER_PROMOTED) == _NEVER_PROMOTED
        )
        keeps_all = options.get("appendonly") == "yes" and options.get("appendfsync") == "always"
        keeps_nothing = options.get("appendonly") == "no" and options.get("save") == ""
        return cls(
            run_id=fields.get("run_id", ""),
            keeps_all=is_original and keeps_all,
            keeps_nothing=is_original and keeps_nothing,
            replication=Replication.parse(fields),
            is_in_cluster=is_node(fields),
            began=_parse_beginning(fields),
        )


async def fetch_epoch(connection: Connection, *, within: float) -> Epoch:
    """Return the present epoch of a server. A configuration that it refuses to tell counts as the worse case.

    Raises:
        TransportError: no reply, or INFO was refused: without it a replica cannot be told from a primary.
    """
    server, replication, *policy = await connection.execute_many(
        [
            ("INFO", "server"),
            ("INFO", "replication"),
            ("CONFIG", "GET", "appendonly"),
            ("CONFIG", "GET", "appendfsync"),
            ("CONFIG", "GET", "save"),
        ],
        within=within,
    )
    require_server(parse_info(server))
    for reply in (server, replication):
        replication_of(reply)  # raises if INFO was refused
    words = [word.decode(errors="replace") for reply in policy for word in _list(reply)]
    return Epoch.parse(parse_info(server, replication), dict(zip(words[::2], words[1::2], strict=False)))


def _parse_beginning(fields: Mapping[str, str]) -> float:
    """Return the end of the second in which the server began: INFO tells whole seconds, and a missed loss is worse."""
    try:
        return (int(fields["server_time_usec"]) // 1_000_000 - int(fields["uptime_in_seconds"]) + 1) * 1_000
    except (KeyError, ValueError):
        return math.inf


def _list(reply: Any) -> list[bytes]:
    """Return the words of a reply to CONFIG GET; none if it was refused, or is no such reply."""
    if isinstance(reply, TransportError) and not (isinstance(reply, ServerRefused) and reply.code in {"NOPERM", "ERR"}):
        raise reply
    return [word for word in reply if isinstance(word, bytes)] if isinstance(reply, list) else []
