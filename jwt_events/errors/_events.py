"""Errors about events that are published or received."""

from __future__ import annotations

from collections.abc import Sequence

from jwt_events.errors._base import JWTEventsError


class InvalidEvent(JWTEventsError, ValueError):
    """An event that cannot be published as given. Raised before anything is sent: correct the event.

    Attributes:
        problems: ``(field, problem)`` pairs, without the values.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)


class EventTooLarge(InvalidEvent):
    """The encoded event exceeds ``max_event_bytes``. Raised before it is sent: shorten its ``reason`` or ``metadata``.

    Attributes:
        size: the encoded size in bytes.
        limit: the maximum size in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__([("event", f"{size} bytes when encoded, the limit is {limit}: shorten reason or metadata")])
        self.size = size
        self.limit = limit


class OutlivesRetention(InvalidEvent):
    """The event expires later than the stream keeps it, and there is no ledger. Raised before it is sent.

    A service that starts after the stream has trimmed the event would not learn of the revocation and would accept the
    token. Use a ledger, raise the transport's ``retention`` to the longest lifetime of a token, or issue tokens that
    expire sooner.

    Attributes:
        retention: how long the transport keeps an event, in seconds.
        needed: how long this event must be kept, in seconds from now.
    """

    def __init__(self, retention: float, needed: float) -> None:
        problem = (
            f"expires {needed:.0f} s from now but the transport's retention is {retention:.0f} s: a service that starts"
            " in between would not learn of it; use a ledger, or a retention of at least the longest token lifetime"
        )
        super().__init__([("expires_at", problem)])
        self.retention = retention
        self.needed = needed


class DecodeError(JWTEventsError):
    """Bytes from the wire that are not an event. Raised by `jwt_events.envelope.decode`; skip the message.

    A `Subscriber` counts such a delivery, logs it and goes on, so its handlers never see this error.

    Attributes:
        reason: one of a fixed set of words, suitable as a metric label: ``too_large``, ``not_json``, ``duplicate_key``,
            ``not_an_envelope``, ``invalid_event``.
        detail: the problem and its place, without any value from the payload.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
