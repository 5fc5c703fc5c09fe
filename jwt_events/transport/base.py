"""The interface of transports, which carry encoded events from senders to receivers.

A transport describes a server, a channel or key, and options. It holds no connection, so one can be shared between a
publisher, subscribers and anything else. ``sender()`` and ``receiver()`` open what they need, and the caller that
entered their context closes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from jwt_events.errors import NotProven, TransportError


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a transport guarantees; choose a transport by these, not by its name.

    Attributes:
        durable: events are stored: a subscriber that was disconnected gets them afterwards.
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
    """A stretch of events that a receiver may have missed.

    Attributes:
        since: the position after which events may be missing; ``None`` where there are no positions.
        cause: one of a few fixed words, fit for a metric label: ``disconnected`` (no connection at the moment),
            ``reconnected`` (connected again); on a stream ``trimmed`` (entries were removed before they were read),
            ``deleted`` (the stream, or its group, was removed), ``rewound`` (it ends before what was already read),
            ``restarted`` (the server was restarted or replaced, and may have lost what it had confirmed),
            ``unproven_history`` (the same, of a time before the reader that reads all of it was opened), ``ledger``
            (the ledger beside it vanished, shrank, or holds what is no rule).
        lost: how many events, where that can be known; ``None`` elsewhere.
    """

    since: str | None
    cause: str
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a consumer group is behind, all its receivers together.

    Attributes:
        destination: the stream.
        group: the name of the group.
        lag: how many events were not delivered to it yet; ``None`` if the server does not know, as one before Redis 7,
            or as any after entries were deleted.
        pending: how many were delivered and are not acknowledged.
    """

    destination: str
    group: str
    lag: int | None
    pending: int


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One delivery of an event's bytes to a receiver. There is one for each event, and a struct is quick to make.

    Attributes:
        payload: the bytes; not in the ``repr``, as they tell which user was logged out.
        position: its position in the stream; ``None`` where there are no positions.
        attempt: how often the event has been delivered, this time included, as the server counts.
        fields: names and values of the entry in turn, if it holds anything else than an event; empty otherwise.
        missing: how many bytes of the entry were left at the server, as it is larger than any event.
    """

    payload: bytes
    position: str | None = None
    attempt: int = 1
    fields: Sequence[bytes] = ()
    missing: int = 0

    def __repr__(self) -> str:
        return f"Delivery(position={self.position!r}, attempt={self.attempt})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show what `repr` shows where rich prints it, such as in a traceback with local variables."""
        return [("position", self.position), ("attempt", self.attempt)]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery was given up.

    Attributes:
        error: the kind of error, and where it was raised; never its message, which may quote the payload.
        handler: which handler failed; ``None`` if the bytes could not be decoded as an event.
        attempts: how often handling was tried, over all deliveries.
    """

    error: str
    handler: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one read of a receiver.

    Attributes:
        deliveries: the deliveries in order; may be empty.
        gaps: what may have been missed before these deliveries.
        current_as_of: a time at which no event existed that is not delivered by now: the *sending* of a read that
            reached the end, or of the last proof before it that the stream is the same. By `time.CLOCK_BOOTTIME` if
            there is one, else `time.monotonic`. ``None`` if more may be waiting, or if it cannot be known.
        reconnected: whether a connection that had been lost was replaced by this read.
        reached: the position up to which nothing is left to deliver, where it is later than that of the last delivery:
            the last entry may have been removed. With gaps that were found when it connected, the position after which
            it reads on. ``None`` where that is not known.
        history: the history of writes that its positions belong to: a server that takes over from another may give a
            position again. Empty where there is only one, or where it is not known.
        ledger: what is still in force of events that were removed from the stream: a part of the ledger, each the
            content and the time of a `LedgerEntry`.
        refusal: why what the server said proves nothing; ``None`` if it was not asked, or if it proves something.
    """

    deliveries: Sequence[Delivery] = ()
    gaps: Sequence[Gap] = ()
    current_as_of: float | None = None
    reconnected: bool = False
    reached: str | None = None
    ledger: Sequence[tuple[bytes, float]] = field(default=(), repr=False)  # they tell which user was logged out
    refusal: NotProven | None = None
    history: str = ""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """Confirmation that the server accepted one payload.

    Attributes:
        position: its position in the stream; ``None`` where there are no positions.
        receivers: how many connections got it from this server; ``None`` where that is not counted.
        replicas: how many replicas have it; ``None`` where that was not asked for.
    """

    position: str | None = None
    receivers: int | None = None
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """The server behind a transport, as traces name it.

    Attributes:
        system: the kind of server: ``redis``.
        address: its host, the path of its socket, or the name of its Sentinel service.
        port: its port; ``None`` where there is none.
        group: the consumer group that shares the events; ``None`` for none.
    """

    system: str
    address: str
    port: int | None = None
    group: str | None = None


class Sender(Protocol):
    """Sends payloads to a server. Safe to call from many tasks at once."""

    def send(self, payloads: Sequence[bytes], *, within: float) -> Awaitable[Sequence[Sent | TransportError]]:
        """Send payloads to the server in order, and return the outcome of each.

        Never raises for a payload that was not accepted: its place holds the error, whose ``maybe_done`` and
        ``retryable`` tell whether to send it again. Does not retry. Cancelling it leaves other callers' payloads alone.

        Args:
            payloads: the payloads.
            within: seconds after which to give up.
        """
        ...


class Receiver(Protocol):
    """Receives payloads. For use by one task.

    One that can lose its connection has an attribute ``is_live``: whether it is connected, as far as it knows. One that
    belongs to a group has ``backlog``, whose attribute ``tell`` it calls with a `Backlog` now and then. One that keeps
    dead letters has ``settler``, whose attribute ``on_dropped`` it calls with how many the server did not take.
    """

    async def receive(self) -> Batch:
        """Wait for the next batch. Reconnects by itself and reports what may have been missed as gaps.

        Returns an empty batch after the ``poll_timeout``. A durable transport does not wait at all until it has reached
        the end. Cancelling it loses no delivery that was not returned, except on a transport that is not durable.

        Raises:
            TransportError: a failure that receiving again would not change.
        """
        ...

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Mark a delivery as done, so that it is not delivered again.

        Returns at once; leaving the receiver's context waits until the server has confirmed it.

        Args:
            delivery: the delivery.
            failure: why it was given up; ``None`` if it was handled. With a failure, a durable transport keeps its
                exact bytes as a dead letter.
        """
        ...


class Transport(Protocol):
    """Carries payloads from senders to receivers."""

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
        """What the transport guarantees."""
        ...

    @property
    def retention(self) -> timedelta | None:
        """How long it keeps events; ``None`` if it stores none, or never removes any."""
        ...

    @property
    def claim_after(self) -> float | None:
        """Seconds after which a delivery that is not settled can go to another receiver; ``None`` if it never does."""
        ...

    def sender(self) -> AbstractAsyncContextManager[Sender]:
        """Open a sender. Connects when it is first used."""
        ...

    def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AbstractAsyncContextManager[Receiver]:
        """Open a receiver. Entering it returns when the server has confirmed, so that no later event is missed.

        Args:
            from_oldest: begin with the oldest event that is stored, in place of where the transport begins by default.
            poll_timeout: seconds after which a read without events returns an empty batch; ``None`` for the default of
                the transport, about a second.
        """
        ...
