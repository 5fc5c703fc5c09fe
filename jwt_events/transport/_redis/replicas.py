"""Where a reader reads from that leaves the primary alone: one of its replicas, or the primary while none is fit.

The primary tells where its replicas are (INFO replication), in every set-up. Each reader ranks them by a number drawn
for itself and the place (rendezvous hashing): so readers spread over all replicas, and when one comes or goes, only
those move that it concerns. Whether a replica is fit, the reader finds out by itself.

Source: https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from loguru import logger

from jwt_events._internal.notices import Notices
from jwt_events.errors import TransportError
from jwt_events.transport._redis.client_options import address_of
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.owner import Owner
from jwt_events.transport._redis.survey import Address
from jwt_events.transport._redis.topology import Topology

# Seconds for which a replica is avoided that was left: each time twice as many, until it lasted for as long.
_INITIAL_AVOIDANCE = 5.0
_MAX_AVOIDANCE = 60.0

# Seconds, on average, that a reader stays where it is before it moves to a replica that ranks higher.
_SETTLE = 5.0

# Seconds that connecting to a replica may take at least: with another one in reserve, waiting longer has no use.
_MIN_WITHIN = 0.5


class ReplicaChoice:
    """Which replica a reader reads from. Pure, but for the number that it is made with.

    Args:
        seed: differs between readers.
    """

    def __init__(self, seed: float) -> None:
        self._seed = seed
        self._avoided: dict[Address, tuple[float, float]] = {}  # until when, and for how long the next time
        self.places: Sequence[Address] = ()
        """Where the replicas are that the primary is in contact with."""

    def best(self, now: float) -> Address | None:
        """Return the place of the replica to read from; ``None`` if there is none."""
        fit = [place for place in self.places if self._avoided.get(place, (0.0, 0.0))[0] <= now]
        return max(fit, key=self._weight, default=None)

    def avoid(self, place: Address, now: float) -> None:
        """Choose another replica for a while, as this one had to be left."""
        until, duration = self._avoided.get(place, (0.0, _INITIAL_AVOIDANCE))
        if now > until + _MAX_AVOIDANCE:
            duration = _INITIAL_AVOIDANCE
        self._avoided[place] = now + duration, min(2 * duration, _MAX_AVOIDANCE)

    def _weight(self, place: Address) -> float:
        return random.Random(f"{self._seed} {place}").random()  # noqa: S311 - no secret


class ReplicaConnector(Owner):
    """Opens the connections that one reader reads from: to a replica, or to the primary while none is fit.

    Args:
        primary: opens connections to the primary, with the options that are used for its replicas, too.
        named: opens connections to the one replica that is to be read from; ``None`` for those that the primary names.
        max_lag: seconds that a replica may take.

    Attributes:
        address: what is read from, as messages name it.
        destination: the key that error messages name.
    """

    def __init__(self, primary: Connector, named: Connector | None = None, *, max_lag: float) -> None:
        super().__init__(primary)
        self.address = f"a replica of {primary.address}" if named is None else named.address
        self.destination = primary.destination
        self._primary = primary
        self._named = named
        self._within = max(max_lag, _MIN_WITHIN)
        self._choice = ReplicaChoice(random.random())  # noqa: S311 - no secret
        if named is not None:
            named.decoder = named.decoder.elsewhere(named.address)
            self._choice.places = [(named.host, named.port or 0)]
        self._present: Address | None = None  # the replica that was connected to last; ``None`` for the primary
        self._failures = 0  # connections that failed since one was accepted
        self._may_move_at = math.inf
        self._better: tuple[Address, Connection] | None = None  # a replica that was found to be fit
        self._is_on_primary = False
        self._notices = Notices()

    @property
    def topology(self) -> Topology:
        """Where the primary is, as far as is known."""
        return self._primary.topology

    def owner(self) -> Owner:
        """Return itself, as it knows where to connect."""
        return self

    def learn(self, places: Sequence[Address]) -> None:
        """Take where the replicas are that the primary is in contact with."""
        if self._named is None:
            self._choice.places = places

    async def connect(self, *, within: float) -> Connection:
        """Open a connection, elsewhere than before if that one was lost.

        Args:
            within: seconds for connecting to the primary and authenticating together.

        Raises:
            TransportError: it could not be opened.
        """
        self._leave()
        if self._better is not None:
            (self._present, connection), self._better = self._better, None
            return connection
        self._present = self._choice.best(time.monotonic()) if self._failures < 2 else None
        return await (self._primary.connect(within=within) if self._present is None else self._open(self._present))

    async def _open(self, place: Address) -> Connection:
        if self._named is not None:
            return await self._named.connect(within=self._within)
        decoder = self._primary.decoder.elsewhere(_text(place))
        connection = await self._primary.open(place, within=self._within, decoder=decoder)
        if self._primary.is_cluster:  # else it would send readers to the owner of the slot
            try:
                await connection.call("READONLY", within=self._within)
            except BaseException:
                connection.abort()
                await connection.aclose()
                raise
        return connection

    def _leave(self) -> None:
        """Avoid the replica that was connected to, unless it was left for a better one."""
        if self._present is not None:
            self._choice.avoid(self._present, time.monotonic())
            self._failures += 1
            self._present = None

    def forgive(self) -> None:
        """Take it that the present server is not to blame for the end of its connection."""
        self._present = None

    def accept(self) -> None:
        """Take it that the present connection is good."""
        self._failures = 0
        self._may_move_at = time.monotonic() + _SETTLE * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        if self._present is not None:
            self._is_on_primary = False
            logger.info("reading from a replica", address=_text(self._present), destination=self.destination)
        elif not self._is_on_primary:
            self._is_on_primary = True
            self._notices.tell(
                "WARNING",
                "no replica is fit to be read from: reading from the primary",
                once="primary",
                address=self._primary.address,
                destination=self.destination,
            )

    @property
    def has_better(self) -> bool:
        """Whether a replica was found that is better to read from than the present server."""
        return self._better is not None

    @asynccontextmanager
    async def trying_better(self) -> AsyncIterator[Connection | None]:
        """Connect to a replica that ranks higher than the present server, which is read from meanwhile.

        It is the next to be connected to, if the block finds nothing wrong with it. Yields ``None`` if there is none.

        Raises:
            TransportError: it is not fit; it is avoided for a while.
        """
        now = time.monotonic()
        best = self._choice.best(now) if now >= self._may_move_at and self._better is None else None
        if best is None or best == self._present:
            yield None
            return
        connection = None
        try:
            connection = await self._open(best)
            yield connection
        except BaseException as error:
            if isinstance(error, TransportError):
                self._choice.avoid(best, time.monotonic())
            if connection is not None:
                connection.abort()
                await connection.aclose()
            raise
        self._better = best, connection

    async def aclose(self) -> None:
        """Close what was opened and is not used."""
        better, self._better = self._better, None
        if better is not None:
            await better[1].aclose()


def _text(place: Address) -> str:
    return address_of(place) if place[1] else f"unix:{place[0]}"
