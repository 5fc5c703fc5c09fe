"""What proves that a reader of a stream has all that there is: the server that it reads from, or another one.

Read from the primary, the server proves it itself (`DirectProof`); read from a replica, the primary does (see
`replica_proof`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jwt_events._internal.clock import boottime
from jwt_events._internal.positions import OLDEST
from jwt_events.errors import ConnectionFailed, NotProven
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.owner import Owner
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._stream.epoch import Epoch
from jwt_events.transport._stream.position import StreamCursor
from jwt_events.transport._stream.succession import Succession


class ReadProof(Protocol):
    """What proves that a reader has all that there is."""

    @property
    def current_as_of(self) -> float | None:
        """The time as of which a read that reaches the end is complete; ``None`` if nothing is proven."""

    @property
    def history(self) -> str:
        """The history of writes that the server has which is read from; empty if it does not say."""

    @property
    def commands(self) -> Sequence[Command]:
        """What the server that is read from is asked, beside its role."""

    async def begin(self, connection: Connection) -> None:
        """Begin with a new connection to read from.

        Raises:
            TransportError: nothing is to be read from it.
        """

    async def judge(self, connection: Connection, cursor: StreamCursor, *, holds: bool) -> str | None:
        """Return the cause of a gap, if what is read from now on may lack what was confirmed earlier.

        Args:
            connection: the connection that was begun with.
            cursor: where the reader stands.
            holds: whether the server has the entry there.
        """

    def request(self, now: float) -> None:
        """Ask whoever else has to prove it, as the server is asked now."""

    def hear(self, replication: Replication, asked_at: float, beside: Sequence[Any] = ()) -> None:
        """Take what the server that is read from said when it was asked at that time.

        Args:
            replication: what it said of its role.
            asked_at: when it was asked.
            beside: the replies to `commands`.

        Raises:
            TransportError: it is to be left.
        """

    def conclude(self) -> None:
        """Take what others have said by now.

        Raises:
            TransportError: the server is to be left; or what others said is an error.
        """

    def take_refusal(self) -> NotProven | None:
        """Return, once, why nothing is proven."""

    def take_move(self) -> bool:
        """Whether to connect anew now, as there is a better server to read from."""


class DirectProof:
    """Proves what is read from the primary. A `ReadProof`.

    Args:
        connector: connects to the last server once more.
        owner: says which server the owner is.
        replicas: how many replicas must be in contact with the server.
    """

    def __init__(self, connector: Connector, owner: Owner, *, replicas: int) -> None:
        self._prover = Prover(connector.address, owner, replicas=replicas)
        self._succession = Succession(connector)
        self._epoch = Epoch()
        self._heard = Replication()  # what the server said last

    @property
    def history(self) -> str:
        """The history of the primary; see `ReadProof`."""
        return self._heard.history

    @property
    def current_as_of(self) -> float | None:
        """The time of the last proof; see `ReadProof`."""
        return self._prover.current_as_of

    @property
    def commands(self) -> Sequence[Command]:
        """What the primary is asked, beside its role; see `ReadProof`."""
        return self._prover.commands

    @property
    def epoch(self) -> Epoch | None:
        """The epoch of the last server; ``None`` if there was none."""
        return self._succession.epoch

    async def begin(self, connection: Connection) -> None:
        """Ask a server for its epoch; see `ReadProof`."""
        sent_at = boottime()
        self._prover.connect(connection.place)
        self._prover.request(sent_at)
        self._epoch = await self._succession.fetch_epoch(connection, within=ATTEMPT_WITHIN)
        beside = await connection.execute_many(self.commands, within=ATTEMPT_WITHIN) if self.commands else ()
        self._heard = self._epoch.replication
        self._prover.hear(self._heard, sent_at, beside)

    async def follow(self, connection: Connection) -> bool:
        """Take the server as the present one, and return whether it may lack what the one before had confirmed.

        Raises:
            NotProven: it is to be left.
        """
        await self._prover.settle()
        return await self._succession.follow(self._epoch, connection)

    async def judge(self, connection: Connection, cursor: StreamCursor, *, holds: bool) -> str | None:
        """Take the server as the present one; see `ReadProof`."""
        is_first = self.epoch is None
        may_lack = await self.follow(connection)
        return self.judge_first(cursor, holds=holds) if is_first else "restarted" if may_lack else None

    def judge_first(self, cursor: StreamCursor, *, holds: bool) -> str | None:
        """Return the cause of a gap for a reader that knows no earlier server; see `ReadProof`."""
        if cursor.is_at_entry and self._epoch.may_lack_what_followed(cursor.position, is_there=holds):
            return "restarted"
        is_unproven = cursor.position == OLDEST and self._prover.may_lack_history(self._epoch.replication)
        return "unproven_history" if is_unproven else None

    def request(self, now: float) -> None:
        """Ask the Sentinels; see `ReadProof`."""
        self._prover.request(now)

    def hear(self, replication: Replication, asked_at: float, beside: Sequence[Any] = ()) -> None:
        """Take what the server said; see `ReadProof`. A replica proves nothing: it may be cut off from its primary.

        A primary that was one before, and followed another one in between, may have lost entries at positions that it
        gives again: it is judged as a new one, on a new connection.
        """
        self._succession.hear(replication)
        self._prover.hear(replication, asked_at, beside)
        if replication.was_replaced_since(self._heard):
            raise ConnectionFailed("the server followed another primary meanwhile")
        self._heard = replication

    def conclude(self) -> None:
        """Take what the Sentinels have said; see `ReadProof`."""
        self._prover.conclude()

    async def settle(self) -> None:
        """Wait for the Sentinels, and take what they say.

        Raises:
            NotProven: the server is to be left.
        """
        await self._prover.settle()

    def take_refusal(self) -> NotProven | None:
        """Return, once, why the last reply was no proof; see `ReadProof`."""
        return self._prover.take_refusal()

    def take_move(self) -> bool:
        """Return ``False``: there is one primary; see `ReadProof`."""
        return False
