"""The receipt of a published event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """Confirmation that the server accepted an event.

    Attributes:
        event_id: the event's id.
        position: where in the stream; ``None`` on a transport without positions.
        receivers: how many connections the server handed it to; ``None`` where nothing counts them. It is no
            acknowledgement.
        replicas: how many replicas of the server have it, if the transport waits for any (``replicas=``).
    """

    event_id: str
    position: str | None = None
    receivers: int | None = None
    replicas: int | None = None
