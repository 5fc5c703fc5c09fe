"""Which entries of a stream no publisher keeps any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from loguru import logger

from jwt_events.errors import TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.plain import PlainKeys

# Trimming is due when this fraction of the retention has passed since the last time, but at most every second.
_TRIMS_PER_RETENTION = 100

_LONGEST = "longest"
_LEDGER = "ledger"
_FOR_EVER = 1e15  # milliseconds; a marker that another program wrote may hold anything


class Horizon(NamedTuple):
    """A moment, and which entries no publisher keeps then.

    Attributes:
        before: entries that were added before this are kept by nobody, in milliseconds since 1970; at least 0.
        now: the server's clock, in seconds since 1970.
    """

    before: int
    now: float


class LongestRetention:
    """The longest retention that publishers of a stream have announced.

    It is kept beside the stream in ``<key>:retention``: a sorted set, as ``ZADD`` can raise a number and read it, so
    that one more right is enough.

    Args:
        keys: the keys of the stream.
        retention: for how long this publisher keeps entries.
        plain: what lies under plain names in a cluster: what publishers announced there is taken over first.

    Attributes:
        interval: seconds after which to look again which entries are kept.
    """

    def __init__(self, keys: StreamKeys, retention: timedelta, plain: PlainKeys) -> None:
        self._plain = plain
        self._keys = keys
        self._retention = int(retention.total_seconds() * 1000)
        self._has_warned = False
        self.interval: float = max(1.0, retention.total_seconds() / _TRIMS_PER_RETENTION)

    async def announce(self, connection: Connection) -> Horizon:
        """Tell the others this retention, and return which entries nobody keeps.

        By the server's clock, so that a publisher whose own clock runs ahead cannot remove entries that others still
        need.

        Raises:
            TransportError: without the right, or without an answer: then nothing may be removed.
        """
        await self._plain.take_over_retention(connection)
        replies = await connection.execute_many(
            [
                ("ZADD", self._keys.retention, "GT", self._retention, _LONGEST),
                ("ZADD", self._keys.retention, "INCR", 0, _LONGEST),  # reads it, without a right to ZSCORE
                ("TIME",),
            ],
            within=ATTEMPT_WITHIN,
        )
        for reply in replies:
            if isinstance(reply, TransportError):
                raise reply
        _, longest, (seconds, microseconds) = replies
        kept = max(self._retention, _milliseconds(longest))
        if kept > self._retention:
            self._warn_once(kept)
        now = int(seconds) * 1000 + int(microseconds) // 1000
        return Horizon(max(0, now - int(kept)), now / 1000)

    async def has_ledger(self, connection: Connection) -> bool:
        """Return whether the stream was ever folded into a ledger, so that there must be one.

        Raises:
            TransportError: without the right, or without an answer.
        """
        reply = await connection.call("ZADD", self._keys.retention, "INCR", 0, _LEDGER, within=ATTEMPT_WITHIN)
        return _milliseconds(reply) > 0

    async def note_ledger(self, connection: Connection) -> None:
        """Remember that the stream was folded into a ledger."""
        await connection.call("ZADD", self._keys.retention, "GT", 1, _LEDGER, within=ATTEMPT_WITHIN)

    def _warn_once(self, kept: float) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "another publisher keeps the events of this stream for longer, so its retention counts",
                destination=self._keys.stream,
                retention=self._retention / 1000,
                longest=kept / 1000,
            )


async def longest_retention(connection: Connection, keys: StreamKeys) -> timedelta | None:
    """Return the longest retention that publishers of a stream have announced; ``None`` if none has.

    What no publisher can have announced, as somebody else wrote it, is none, or as long as can be.

    Raises:
        TransportError: without the right, or without an answer.
    """
    longest = await connection.call("ZSCORE", keys.retention, _LONGEST, within=ATTEMPT_WITHIN)
    kept = 0.0 if longest is None else _milliseconds(longest)
    return timedelta(milliseconds=kept) if kept > 0 else None


def _milliseconds(reply: Any) -> float:
    try:
        return min(float(reply), _FOR_EVER)
    except (TypeError, ValueError):
        raise TransportError("the server did not say what the longest retention is, so nothing is removed") from None
