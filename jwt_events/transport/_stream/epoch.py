"""Whether the server is still the one that a reader knew.

A position alone cannot prove that nothing is missing: a server that was restarted, or replaced by a replica, may have
lost what it had confirmed, and what it confirms next takes the same place. So a position is trusted only together with
the server's run id, unless the server is set up to lose nothing.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.position import sort_key

_NEVER_PROMOTED = "0" * 40


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of a server.

    Attributes:
        run_id: changes whenever the server process does; empty if the server does not say.
        keeps_all: whether what it confirmed survives a crash: every write is on disk before it is confirmed, and the
            server was never promoted from a replica. ``False`` if it does not say.
        keeps_nothing: whether it writes nothing to disk and never got anything from another server, so that whatever is
            there was added in this epoch. ``False`` if it does not say.
        is_replica: whether it follows another server, of which it may have heard nothing for a long time. ``False`` if
            it does not say.
        began: when it had certainly begun, in milliseconds of its own clock, which positions are made of; 0 if it does
            not say.
    """

    run_id: str = ""
    keeps_all: bool = False
    keeps_nothing: bool = False
    is_replica: bool = False
    began: int = 0

    def may_lack(self, before: Epoch) -> bool:
        """Whether something that was confirmed in the epoch ``before`` may be missing in this one."""
        is_same = before.run_id == self.run_id != ""
        return not is_same and not (before.keeps_all and self.keeps_all)

    def may_lack_what_followed(self, position: str, *, is_there: bool) -> bool:
        """Whether something confirmed after this position may be missing, for a reader that knows no earlier epoch.

        Args:
            position: that of an entry that was confirmed.
            is_there: whether the server still knows of it.
        """
        if self.keeps_all or (self.keeps_nothing and is_there):
            return False
        return sort_key(position)[0] < self.began

    @classmethod
    def parse(cls, info: str, policy: Sequence[str]) -> Epoch:
        """Read the answers of INFO and of CONFIG GET."""
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        options = dict(zip(policy[::2], policy[1::2], strict=False))
        is_original = (
            fields.get("role") == "master" and fields.get("master_replid2", _NEVER_PROMOTED) == _NEVER_PROMOTED
        )
        keeps_all = options.get("appendonly") == "yes" and options.get("appendfsync") == "always"
        keeps_nothing = options.get("appendonly") == "no" and options.get("save") == ""
        return cls(
            run_id=fields.get("run_id", ""),
            keeps_all=is_original and keeps_all,
            keeps_nothing=is_original and keeps_nothing,
            is_replica=fields.get("role") == "slave",
            began=_beginning(fields),
        )


async def epoch_of(connection: Connection, *, within: float) -> Epoch:
    """Ask the server. What it refuses to say counts as the worse case.

    Raises:
        TransportError: no answer, or nothing at all is told, for want of a password.
    """
    server, replication, *policy = await connection.pipeline(
        [
            ("INFO", "server"),
            ("INFO", "replication"),
            ("CONFIG", "GET", "appendonly"),
            ("CONFIG", "GET", "appendfsync"),
            ("CONFIG", "GET", "save"),
        ],
        within=within,
    )
    return Epoch.parse(
        _text(server) + _text(replication), [part.decode() for answer in policy for part in _list(answer)]
    )


def is_replica(replication: Any) -> bool:
    """Read the answer of INFO replication; see `Epoch.is_replica`.

    Raises:
        TransportError: no answer.
    """
    return "role:slave" in _text(replication)


def _beginning(fields: Mapping[str, str]) -> int:
    """Return the end of the second in which the server began: it tells whole seconds, and missing a loss is worse."""
    try:
        return (int(fields["server_time_usec"]) // 1_000_000 - int(fields["uptime_in_seconds"]) + 1) * 1_000
    except (KeyError, ValueError):
        return 0


def _text(answer: Any) -> str:
    return "" if _is_refused(answer) else answer.decode()


def _list(answer: Any) -> list[bytes]:
    return [] if _is_refused(answer) else answer


def _is_refused(answer: Any) -> bool:
    """Whether the server will not tell, for want of rights or because it has no such command."""
    if isinstance(answer, ServerRefused) and answer.code in {"NOPERM", "ERR"}:
        return True
    if isinstance(answer, TransportError):
        raise answer
    return False
