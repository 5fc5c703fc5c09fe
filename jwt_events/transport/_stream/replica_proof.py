"""What proves that a reader of a replica has all that there is: the primary, over a connection of its own.

At each pulse the primary says how much it has written of which history (INFO replication), and the replica, how much of
it it has carried out. Once the replica has reached what the primary had at the sending of that request, it is in a
later state than the primary was then; and a replica carries out what its primary did, in the same order. So what the
replica has shown of the stream, its ledger and their counts is compared within itself, as on a primary: that a removal
arrives there later makes no gap, and hides none.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/replication/#replication-id-explained
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from jwt_events._internal.cancellation import end
from jwt_events._internal.clock import boottime
from jwt_events.errors import ConnectionFailed, NotProven, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replicas import ReplicaConnector
from jwt_events.transport._redis.role import replication_of
from jwt_events.transport._stream.epoch import Epoch
from jwt_events.transport._stream.position import StreamCursor
from jwt_events.transport._stream.read_proof import DirectProof

# Seconds after which a replica is asked again that has not reached what its primary had.
_RECHECK = 0.02

# Seconds before the primary is asked again that sent an error reply.
_PAUSE = 1.0

# Seconds between two looks for a better replica.
_LOOK_INTERVAL = 1.0

# How many replies of the primary are kept that no replica has reached yet.
_MAX_PENDING = 32


class _Reached(NamedTuple):
    """What the primary said.

    Attributes:
        sent_at: when it was asked.
        current_as_of: the time at which it was certainly the primary; ``None`` if that is not proven.
        replication: what it had by then.
    """

    sent_at: float
    current_as_of: float | None
    replication: Replication


class ReplicaProof:
    """Proves what is read from a replica, by what the primary says over a connection of its own. A `ReadProof`.

    An async context manager: entered, it is connected to the primary, and asks it now and then.

    Args:
        connector: connects to the primary.
        source: connects to what is read from.
        replicas: how many replicas must be in contact with the primary.
        interval: seconds between the requests to the primary.
        max_lag: seconds by which a replica may lag before it is left.
    """

    def __init__(
        self, connector: Connector, source: ReplicaConnector, *, replicas: int, interval: float, max_lag: float
    ) -> None:
        self._primary = ReconnectingConnection(connector, transport="stream", on_connect=self._on_connect)
        self._proof = DirectProof(connector, self._primary.owner, replicas=replicas)
        self._source = source
        self._interval = interval
        self._max_lag = max_lag
        self._lock = asyncio.Lock()  # held while the primary is asked, or connected to
        self._tasks: list[asyncio.Task[None]] = []
        self._error: TransportError | None = None
        self._pending: deque[_Reached] = deque(maxlen=_MAX_PENDING)
        self._last = Replication()  # what the primary said last
        self._epoch: Epoch | None = None  # of the primary when the present connection was begun with
        self._is_judged = False  # whether it is known what is missing of the time before
        self._may_lack = False  # whether a primary followed that may lack what the one before had
        self.current_as_of: float | None = None
        """The time of the last request to the primary whose reply the replica has reached; see `ReadProof`."""
        self.history = ""
        """The history that the replica shares with its primary; see `ReadProof`."""

    async def __aenter__(self) -> Self:
        """Connect to the primary.

        Raises:
            TransportError: it took longer than five seconds, or the server refused.
        """
        await self._primary.__aenter__()
        for work in (self._ask_on(), self._look_around()):
            self._tasks.append(asyncio.create_task(work, name="jwt_events proof"))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await end(self._tasks)
        finally:
            await self._primary.aclose()

    @property
    def commands(self) -> Sequence[Command]:
        """Nothing: only the primary proves that it is one; see `ReadProof`."""
        return ()

    async def begin(self, connection: Connection) -> None:
        """Wait until a replica has reached what its primary has now, so that nothing moves back; see `ReadProof`."""
        self.current_as_of = None
        try:
            reached = await self._ask()
        except TransportError:
            self._source.forgive()
            raise
        self._epoch = self._proof.epoch
        said = await self._wait_until_reached(connection, reached.replication)
        self._take_reached(said)
        self.history = said.history
        self._source.accept()

    async def judge(self, connection: Connection, cursor: StreamCursor, *, holds: bool) -> str | None:
        """Return whether the primary may lack what one before it had confirmed; see `ReadProof`."""
        if self._proof.epoch is not self._epoch:  # what the replica said by now was about the one before
            self._source.forgive()
            raise ConnectionFailed(f"the primary of {self._source.address} was replaced meanwhile")
        may_lack, self._may_lack = self._may_lack, False
        if self._is_judged:
            return "restarted" if may_lack else None
        self._is_judged = True
        return self._proof.judge_first(cursor, holds=holds)

    def request(self, now: float) -> None:
        """Do nothing: the primary is asked all the time; see `ReadProof`."""

    def hear(self, replication: Replication, asked_at: float, beside: Sequence[Any] = ()) -> None:
        """Take how much the replica has reached; see `ReadProof`."""
        self._require_same_history(replication)
        self._take_reached(replication)
        self.history = replication.history
        if self._pending and self._pending[0].sent_at < asked_at - self._max_lag:
            raise self._lags()

    def conclude(self) -> None:
        """Raise what the primary, or asking it, failed with; see `ReadProof`."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        for task in self._tasks:
            if task.done():
                task.result()
        if self._may_lack and self._is_judged:
            self._source.forgive()
            raise ConnectionFailed(f"the primary of {self._source.address} was replaced")

    def take_refusal(self) -> NotProven | None:
        """Return, once, why the primary proves nothing; see `ReadProof`."""
        return self._proof.take_refusal() or self._primary.take_refusal()

    def take_move(self) -> bool:
        """Whether another replica is better to read from; see `ReadProof`."""
        if not self._source.has_better:
            return False
        self._source.forgive()
        return True

    def _lags(self) -> ConnectionFailed:
        return ConnectionFailed(f"{self._source.address} lags behind its primary")

    async def _wait_until_reached(self, connection: Connection, primary: Replication) -> Replication:
        until = boottime() + self._max_lag
        while not (said := await self._fetch(connection)).has_reached(primary):
            if boottime() > until:
                raise self._lags()
            await asyncio.sleep(_RECHECK)
        return said

    async def _fetch(self, connection: Connection) -> Replication:
        """Return what a server says of itself that is to be read from."""
        within = min(ATTEMPT_WITHIN, 2 * self._max_lag)
        said = replication_of(await connection.call("INFO", "replication", within=within))
        self._require_same_history(said)
        return said

    def _require_same_history(self, said: Replication) -> None:
        if said.role != "master" and not said.is_following:
            raise ConnectionFailed(f"{self._source.address} is not connected to its primary, or takes writes itself")
        if said.history != self._last.history or not said.history:
            raise ConnectionFailed(f"{self._source.address} follows another primary")

    def _take_reached(self, said: Replication) -> None:
        while self._pending and said.has_reached(self._pending[0].replication):
            self.current_as_of = self._pending.popleft().current_as_of

    async def _on_connect(self, connection: Connection) -> None:
        is_first = self._proof.epoch is None
        await self._proof.begin(connection)
        may_lack = await self._proof.follow(connection)
        self._may_lack = self._may_lack or (may_lack and not is_first)
        if (epoch := self._proof.epoch) is not None:
            self._source.learn(await self._primary.owner.replicas(connection, epoch.replication))

    async def _ask_on(self) -> None:
        while True:
            try:
                await self._ask()
            except TransportError as error:
                if not error.retryable:
                    self._error = error
                    await asyncio.sleep(_PAUSE)
                continue  # connecting again takes its pauses
            await asyncio.sleep(self._interval)

    async def _look_around(self) -> None:
        """Look for a better replica, while the present one is read from."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            with suppress(TransportError):  # it is avoided for a while
                if (primary := self._primary.connection) is not None:
                    self._source.learn(await self._primary.owner.replicas(primary, self._last))
                async with self._source.trying_better() as connection:
                    if connection is not None:
                        await self._wait_until_reached(connection, self._last)

    async def _ask(self) -> _Reached:
        """Ask the primary how much it has written, and return what it said.

        Raises:
            TransportError: it did not reply, or is no primary.
        """
        async with self._lock:
            connection = self._primary.connection
            if connection is None:
                if not await self._primary.reconnect() or self._primary.connection is None:
                    raise ConnectionFailed("the primary cannot be reached")
                connection = self._primary.connection
            try:
                return await self._ask_at(connection)
            except TransportError as error:
                await self._primary.drop(error)
                raise

    async def _ask_at(self, connection: Connection) -> _Reached:
        sent_at = boottime()
        self._proof.request(sent_at)
        commands: list[Command] = [("INFO", "replication"), *self._proof.commands]
        replication, *beside = await connection.execute_many(commands, within=ATTEMPT_WITHIN)
        said = replication_of(replication)
        self._proof.hear(said, sent_at, beside)
        await self._proof.settle()
        if said.history != self._last.history:
            self._pending.clear()
        self._last = said
        reached = _Reached(sent_at, self._proof.current_as_of, said)
        self._pending.append(reached)
        return reached
