"""Observer that records OpenTelemetry metrics by the messaging conventions.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/ (version 1.44)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from opentelemetry.metrics import Meter

from jwt_events.events import Event
from jwt_events.instrumentation import Observer, Published

# Bucket boundaries that the conventions require, in seconds.
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_ERRORS = {Published.FAILED: "PublishFailed", Published.UNKNOWN: "PublishOutcomeUnknown"}


class MessagingMetrics(Observer):
    """Records the messaging metrics of one publisher or subscriber.

    Args:
        meter: creates the instruments.
        send: attributes of the send operation.
        process: attributes of the process operation.
    """

    def __init__(self, meter: Meter, *, send: Mapping[str, str | int], process: Mapping[str, str | int]) -> None:
        self._send = send
        self._process = process
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._processing = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )

    def published(self, accepted: Sequence[Event], rest: Sequence[Event], outcome: Published, seconds: float) -> None:
        """Record sent messages and the duration; see `Observer.published`."""
        failed = {**self._send, "error.type": _ERRORS[outcome]} if rest else self._send
        if accepted:
            self._sent.add(len(accepted), self._send)
        if rest:
            self._sent.add(len(rest), failed)
        self._operation.record(seconds, failed)

    def received(self, events: Sequence[Event]) -> None:
        """Record consumed messages; see `Observer.received`."""
        self._consumed.add(len(events), self._process)

    def processed(self, event: Event, error: str | None, began: float) -> None:
        """Record the duration of processing; see `Observer.processed`."""
        seconds = perf_counter() - began
        self._processing.record(seconds, self._process if error is None else {**self._process, "error.type": error})
