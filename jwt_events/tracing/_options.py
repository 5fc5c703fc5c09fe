"""Traces that connect who publishes an event with who handles it, through the OpenTelemetry API.

The context of the publish travels in the event. By default the span of the handling is *linked* to it and begins a
trace of its own: an event has many receivers, and may be handled long after the request that published it has ended.

Without an OpenTelemetry SDK there are no spans and it costs next to nothing. No attribute names a person: of an event
there is its id and nothing of its content; of an error its class and place, not its message.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ (version 1.44)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from jwt_events._internal import options
from jwt_events.errors import InvalidOption

if TYPE_CHECKING:
    import opentelemetry.sdk.trace


@dataclass(frozen=True, slots=True)
class Tracing:
    """How to trace, where a provider alone does not say enough. Pass it as ``tracer_provider``.

    Attributes:
        tracer_provider: makes the tracers; ``None`` means the global one, as soon as there is one.
        meter_provider: counts by the messaging conventions; ``None`` does not.
        parent: whether the span of the handling only has a ``"link"`` to the span of the publish, or is its ``"child"``
            too.
        create_spans: whether ``publish_many`` makes a span for each event beside that of the sending, as the
            conventions recommend; otherwise all of them carry the context of the sending.
        ratio: which part of the events to trace, from 0 to 1, decided by one random number before OpenTelemetry is
            asked: with many events its samplers cost more than anything else here. What is published within a recorded
            span, and what handles an event whose publish was recorded, is always traced, so that both ends of a link
            are kept or neither. ``None`` leaves it to the sampler of the provider, which decides for each span.
    """

    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    parent: Literal["link", "child"] = "link"
    create_spans: bool = True
    ratio: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tracer_provider, TracerProvider | None):
            raise InvalidOption("tracer_provider", "must be an OpenTelemetry TracerProvider, a Tracing, or None")
        if not isinstance(self.meter_provider, MeterProvider | None):
            raise InvalidOption("meter_provider", "must be an OpenTelemetry MeterProvider or None")
        if self.parent not in ("link", "child"):
            raise InvalidOption("parent", "must be 'link' or 'child'")
        if self.ratio is not None:
            options.part("ratio", self.ratio)


AnyTracing: TypeAlias = TracerProvider | Tracing
"""What a publisher or subscriber accepts as ``tracer_provider``."""


def setup(
    service_name: str, endpoint: str = "http://localhost:4317", *, ratio: float = 1.0
) -> opentelemetry.sdk.trace.TracerProvider:
    """Send traces to Jaeger, or whatever else takes OTLP over gRPC, from a thread of its own. Needs the extra ``otlp``.

    The provider becomes the global one, so publishers and subscribers use it without being told. Call its
    ``shutdown()`` when the program ends, which sends what is left; the interpreter does so at its exit if nobody did.
    While the endpoint is down, spans are dropped, with one warning through the logger of OpenTelemetry's exporter;
    nothing waits for it, but for ``shutdown()``, up to about five seconds.

    Args:
        service_name: what the program is called in the traces.
        endpoint: where to send them; ``https://`` for TLS.
        ratio: which part of the traces to keep, from 0 to 1. A trace that began elsewhere is kept if it was there.
            Where that is small and events are many, `Tracing.ratio` is much cheaper.

    Raises:
        InvalidOption: an argument cannot work, there is a global provider already, or the extra is not installed.
    """
    try:
        from jwt_events.tracing import _otlp as otlp  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidOption("setup", "needs the OTLP exporter; get it from a clone: pip install '.[otlp]'") from None
    return otlp.provider(service_name, endpoint, ratio)
