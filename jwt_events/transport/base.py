"""The seam between events and the wire: what every transport provides.

A transport is a description: where, and with which options. It holds no connection, so one can be shared between a
publisher, subscribers and anything else. ``sender()`` and ``receiver()`` open what they need and whoever opened it
closes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol, runtime_checkable

from jwt_events.errors import TransportError


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a transport promises; choose one by these, not by its name.

    Attributes:
        durable: events outlive the moment: a subscriber that was away gets them afterwards.
        redelivers: an event that was not acknowledged is delivered again.
        ordered: every receiver sees all events in one order.
        fan_out: every receiver sees every event; otherwise each event goes to one of them.
    """

    durable: bool
    redelivers: bool
    ordered: bool
    fan_out: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Something may have been missed.

    Attributes:
        since: the position after which events may be missing; ``None`` where there are no positions.
        cause: one of a few fixed words, fit for a metric label: ``disconnected`` (not listening at the moment),
            ``reconnected`` (listening again); on a stream ``trimmed`` (entries were removed before they were read),
            ``deleted`` (the stream, or its group, was removed), ``rewound`` (it ends before what was read already),
            ``restarted`` (the server was restarted or replaced, and may have lost what it had confirmed).
        lost: how many, where it can be known.
    """

    since: str | None
    cause: str
    lost: int | None = None


class Delivery(NamedTuple):
    """One arrival of an event's bytes.

    Attributes:
        payload: the bytes; not in the ``repr``, as they say who was logged out.
        position: where in the stream; ``None`` where there are no positions.
        attempt: how often it has been delivered, this time included, as the server counts.
    """

    payload: bytes
    position: str | None = None
    attempt: int = 1

    def __repr__(self) -> str:
        return f"Delivery(position={self.position!r}, attempt={self.attempt})"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery was given up.

    Attributes:
        error: the kind of error, and where it was raised; never its message, which may quote the payload.
        handler: which handler failed; ``None`` if it did not get that far.
        attempts: how often it was tried, over all deliveries.
    """

    error: str
    handler: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read returned.

    Attributes:
        deliveries: in order; may be empty.
        gaps: what may be missing before these deliveries.
        current_as_of: a time (`time.monotonic`) at which nothing existed that was not delivered by now: the *sending*
            of a read that reached the end, or of the last proof before it that the stream is still the same. ``None``
            if more may be waiting, or if the transport cannot know: a replica may be cut off from its primary.
        reconnected: whether a connection that had been lost was replaced by this read.
    """

    deliveries: Sequence[Delivery] = ()
    gaps: Sequence[Gap] = ()
    current_as_of: float | None = None
    reconnected: bool = False


class Sent(NamedTuple):
    """The server accepted one payload.

    Attributes:
        position: where in the stream; ``None`` where there are no positions.
        receivers: how many connections got it from this server; ``None`` where nobody counts.
    """

    position: str | None = None
    receivers: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """The server behind a transport, as traces name it.

    Attributes:
        system: what kind of server: ``redis``.
        address: its host, the path of its socket, or the name of the service that it stands for.
        port: its port; ``None`` where there is none.
        group: whom the events are shared with; ``None`` for nobody.
    """

    system: str
    address: str
    port: int | None = None
    group: str | None = None


class Sender(Protocol):
    """Sends payloads. Safe to call from many tasks at once."""

    def send(self, payloads: Sequence[bytes], *, within: float) -> Awaitable[Sequence[Sent | TransportError]]:
        """Hand payloads to the server, in this order, and say what became of each.

        Never raises for a payload that was not accepted: its place holds the error, whose ``maybe_done`` and
        ``retryable`` tell what to do. Does not retry. Cancelling it leaves other callers' payloads alone.

        Args:
            payloads: what to send.
            within: seconds after which to give up.
        """
        ...


class Receiver(Protocol):
    """Receives payloads. For one task."""

    async def receive(self) -> Batch:
        """Wait for the next page. Reconnects by itself and reports what may have been missed as gaps.

        Returns after the ``poll_timeout`` even if there is nothing. A durable transport does not even wait for that as
        long as the end was not reached. Cancelling it loses nothing that was not returned, except on a transport that
        is not durable.

        Raises:
            TransportError: it is of no use to go on.
        """
        ...

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Say that a delivery is done with, so that it is not delivered again.

        Returns at once; leaving the receiver's context waits until the server knows.

        Args:
            delivery: which one.
            failure: if it was given up, why. A durable transport then keeps its exact bytes as a dead letter.
        """
        ...


class Transport(Protocol):
    """A way to move payloads from senders to receivers."""

    @property
    def name(self) -> str:
        """A short word for logs and metrics: ``pubsub``, ``stream``, ``memory``."""
        ...

    @property
    def destination(self) -> str:
        """The channel or key."""
        ...

    @property
    def guarantees(self) -> Guarantees:
        """What it promises."""
        ...

    @property
    def retention(self) -> timedelta | None:
        """How long it remembers; ``None`` if it has no memory, or does not forget."""
        ...

    @property
    def claim_after(self) -> float | None:
        """Seconds after which a delivery that is not settled can go to somebody else; ``None`` if it never does."""
        ...

    def sender(self) -> AbstractAsyncContextManager[Sender]:
        """Open a way to send. Connects when first needed."""
        ...

    def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AbstractAsyncContextManager[Receiver]:
        """Subscribe. Entered means that the server confirmed it, so that nothing sent from then on is missed.

        Args:
            from_oldest: begin with the oldest event that is remembered, wherever the transport would begin by itself.
            poll_timeout: seconds that a read may wait at most before it returns, even if there is nothing; ``None`` for
                what suits the transport, about a second.
        """
        ...


@runtime_checkable
class Located(Protocol):
    """A transport that uses a server. What traces say of it; a transport need not be one."""

    @property
    def server(self) -> Server:
        """Which server."""
        ...
