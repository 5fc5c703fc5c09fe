"""Variants of observability for a publisher and a subscriber, whose cost is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry

from jwt_events.metrics import Metrics


def metrics() -> dict[str, Any]:
    """Return metrics on a registry of their own."""
    return {"metrics": Metrics(CollectorRegistry())}


@cache
def _provider(ratio: float) -> Any:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415 - slow to import
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - the same
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415 - the same

    class Discard(SpanExporter):
        """An exporter that drops spans."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            """Drop the spans."""
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))
    provider.add_span_processor(BatchSpanProcessor(Discard()))
    return provider


def sampled_by_tracing() -> dict[str, Any]:
    """Trace one event in a hundred, as `Tracing.ratio` decides."""
    from jwt_events.tracing import Tracing  # noqa: PLC0415 - with the SDK

    return {"tracer_provider": Tracing(_provider(1.0), ratio=0.01)}


def sampled_by_the_sdk() -> dict[str, Any]:
    """Trace one event in a hundred, as the sampler of the SDK decides."""
    return {"tracer_provider": _provider(0.01)}


def recorded() -> dict[str, Any]:
    """Trace every event."""
    return {"tracer_provider": _provider(1.0)}


VARIANTS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "": dict,
    ", metrics": metrics,
    ", traced 1 % by Tracing(ratio=0.01)": sampled_by_tracing,
    ", traced 1 % by the SDK's sampler": sampled_by_the_sdk,
    ", traced 100 %": recorded,
}
