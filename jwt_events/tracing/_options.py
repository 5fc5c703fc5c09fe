"""Options of tracing. Traces connect the publish of an event with its handling, through the OpenTelemetry API.

The trace context of the publish travels in the event. By default the process span is *linked* to the publish span and
starts a new trace, because an event has many receivers and may be handled long after the request that published it.

Without an OpenTelemetry SDK no spans are created, at almost no cost. No attribute identifies a person: a span has the
id of an event but not its content, and the class and place of an error but not its message.

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
    """Tracing options beyond the choice of a provider. Pass it as ``tracer_provider``.

    Attributes:
        tracer_provider: creates the tracers; ``None`` means the global provider, once it is set.
        meter_provider: records metrics by the messaging conventions; ``None`` means no metrics.
        parent: ``"link"``: the process span has a link to the publish span; ``"child"``: it is also its child.
        create_spans: whether ``publish_many`` creates a span for each event beside the publish span, as the conventions
            recommend; otherwise all events carry the context of the publish span.
        ratio: fraction of the events to trace, from 0 to 1, decided by one random number before OpenTelemetry is
            called, because with many events its samplers are the most expensive part. A publish within a recorded span,
            and the handling of an event whose publish was recorded, are always traced, so that both ends of a link are
            recorded or neither is. ``None`` leaves the decision to the sampler of the provider, for each span.
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
"""Type of ``tracer_provider`` of a publisher or subscriber."""


def setup(
    service_name: str, endpoint: str = "http://localhost:4317", *, ratio: float = 1.0
) -> opentelemetry.sdk.trace.TracerProvider:
    """Export traces to Jaeger or another OTLP collector over gRPC, from a background thread. Needs the extra ``otlp``.

    The provider becomes the global one, which publishers and subscribers use by default. Call its ``shutdown()`` when
    the program ends, to export the remaining spans; otherwise the interpreter does so at exit. While the endpoint is
    down, spans are dropped, with one warning through the logger of OpenTelemetry's exporter. Only ``shutdown()`` waits
    for the endpoint, for up to about five seconds.

    Args:
        service_name: name of the program in the traces.
        endpoint: URL of the collector; ``https://`` for TLS.
        ratio: fraction of the traces to record, from 0 to 1. A trace that began in another program is recorded if it
            was recorded there. For a small fraction of many events, `Tracing.ratio` is much cheaper.

    Raises:
        InvalidOption: an argument cannot work, a global provider is already set, or the extra is not installed.
    """
    try:
        from jwt_events.tracing import _otlp as otlp  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidOption("setup", "needs the OTLP exporter; get it from a clone: pip install '.[otlp]'") from None
    return otlp.provider(service_name, endpoint, ratio)
