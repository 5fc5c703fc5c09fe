"""Exports traces by OTLP over gRPC; see `jwt_events.tracing.setup`. Imports the OpenTelemetry SDK, an extra."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from jwt_events._internal import options
from jwt_events.errors import InvalidOption

# Seconds that the export of one batch may take, and seconds without exports after one has failed.
_EXPORT_TIMEOUT = 5
_PAUSE = 5.0

# Loggers of the SDK that report failed exports, and spans that are dropped because of them.
_LOGGERS = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal")


def provider(service_name: str, endpoint: str, ratio: float) -> TracerProvider:
    """Create the global provider; see `jwt_events.tracing.setup`."""
    options.name("service_name", service_name)
    if not isinstance(endpoint, str) or urlsplit(endpoint).scheme not in ("http", "https"):
        raise InvalidOption("endpoint", "must be a URL such as http://localhost:4317")
    options.part("ratio", ratio)
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        raise InvalidOption("setup", "there is a global TracerProvider already: add a span processor to that one")
    made = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service_name}), sampler=ParentBasedTraceIdRatio(ratio)
    )
    made.add_span_processor(
        BatchSpanProcessor(_QuietExporter(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT)))
    )
    trace.set_tracer_provider(made)
    return made


class _QuietExporter(SpanExporter):
    """Span exporter that pauses while the endpoint is down, and warns once per outage."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failed_at: float | None = None
        self._outage = _OncePerOutage()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._outage)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._failed_at is not None and time.monotonic() < self._failed_at + _PAUSE:
            return SpanExportResult.FAILURE
        exporting = _is_exporting.set(True)
        try:
            result = self._exporter.export(spans)
        finally:
            _is_exporting.reset(exporting)
        self._failed_at = None if result is SpanExportResult.SUCCESS else time.monotonic()
        self._outage.has_warned = self._failed_at is not None
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._outage)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


_is_exporting: ContextVar[bool] = ContextVar("is_exporting", default=False)


class _OncePerOutage(logging.Filter):
    """Log filter that passes the first warning of an outage and drops the others until an export succeeds.

    Warnings about the exporters of other libraries pass.

    Attributes:
        has_warned: whether a warning was passed during this outage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_warned = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not (_is_exporting.get() or record.name == _LOGGERS[1]):
            return True
        first, self.has_warned = not self.has_warned, True
        return first
