"""Creates and ends the spans of publishing and processing.

Source: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ (version 1.44)
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeAlias

from loguru import logger
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode

from jwt_events._internal.describing import describe
from jwt_events.envelope import Envelope
from jwt_events.events import Event
from jwt_events.instrumentation import Observer
from jwt_events.tracing._context import headers, is_sampled, parse
from jwt_events.tracing._options import AnyTracing, Tracing
from jwt_events.tracing._otel_metrics import MessagingMetrics
from jwt_events.transport.base import Transport
from jwt_events.transport.optional import Located

_SCOPE = "jwt_events"
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

_NO_CONTEXT = Context()

# Seconds between two checks for a global provider, because a check costs more than everything else here.
_PROVIDER_CHECK_INTERVAL = 1.0

Attributes: TypeAlias = Mapping[str, str | int]


class Tracers:
    """Finds the tracer of a component, and decides what it traces.

    Args:
        tracing: the provider, or the options; ``None`` means the global provider.

    Raises:
        InvalidOption: ``tracing`` is neither a ``TracerProvider`` nor a `Tracing`.
    """

    def __init__(self, tracing: AnyTracing | None) -> None:
        self.tracing: Tracing = tracing if isinstance(tracing, Tracing) else Tracing(tracing)
        self.tracer: trace.Tracer | None = None
        """The tracer that `find_tracer` has found."""
        self._next_check = 0.0

    def _selected(self) -> trace.Tracer | None:
        """Return the tracer for a span within the current one; ``None`` if it is not traced."""
        tracer = self.find_tracer()
        if tracer is None or not (self._is_selected() or trace.get_current_span().is_recording()):
            return None
        return tracer

    def _is_selected(self) -> bool:
        ratio = self.tracing.ratio
        return ratio is None or random.random() < ratio  # noqa: S311 - the number is not a secret

    def find_tracer(self) -> trace.Tracer | None:
        """Return the tracer; ``None`` as long as the program has set no provider."""
        if self.tracer is not None or (now := time.monotonic()) < self._next_check:
            return self.tracer
        self._next_check = now + _PROVIDER_CHECK_INTERVAL
        provider = self.tracing.tracer_provider or trace.get_tracer_provider()
        if not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            self.tracer = provider.get_tracer(_SCOPE, schema_url=_SCHEMA)
        return self.tracer


class Spans(Tracers):
    """Creates the spans of one publisher or subscriber.

    Args:
        tracing: the provider, or the options; ``None`` means the global provider.
        transport: carries the events; describes the destination.

    Raises:
        InvalidOption: ``tracing`` is neither a ``TracerProvider`` nor a `Tracing`.
    """

    def __init__(self, tracing: AnyTracing | None, transport: Transport) -> None:
        super().__init__(tracing)
        self.publish_name: str = f"publish {transport.destination}"
        self.create_name: str = f"create {transport.destination}"
        self.process_name: str = f"process {transport.destination}"
        place = _place(transport)
        self.publish: Attributes = _operation("publish", "send", place)
        self.create: Attributes = _operation("create", "create", place)
        self.process: Attributes = _operation("process", "process", place | _group(transport))
        self.observer: Observer | None = _observer(self.tracing.meter_provider, self.publish, self.process)

    def publishing(self, events: Sequence[Event]) -> Publishing | None:
        """Return the span of a call of publish, not yet started; ``None`` if it is not traced."""
        if self.tracer is None and time.monotonic() < self._next_check:
            return None  # as `find_tracer` would say: it saves a call for each event
        if self.find_tracer() is None or not events or (tracer := self._selected()) is None:
            return None
        return Publishing(self, tracer, events)

    def processing(self, envelope: Envelope) -> Processing | None:
        """Return the span of the handling of an event, not yet started; ``None`` if it is not traced.

        It does not look for a tracer, as that is done once for a batch of events.
        """
        if self.tracer is None or not (self._is_selected() or is_sampled(envelope.traceparent)):
            return None
        return Processing(self, self.tracer, envelope)


class CurrentSpan:
    """Context manager that makes a span the current one: new spans become its children, and log lines get its ids.

    Log lines get ids only if the span is recorded: others could not be looked up, and binding them takes time.
    """

    __slots__ = ("_lines", "_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._lines = None
        if self._span.is_recording():
            ids = self._span.get_span_context()
            self._lines = logger.contextualize(
                trace_id=trace.format_trace_id(ids.trace_id), span_id=trace.format_span_id(ids.span_id)
            )
            self._lines.__enter__()
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context.detach(self._token)
        if self._lines is not None:
            self._lines.__exit__(None, None, None)


class Publishing:
    """Span of one call of publish. On entry it starts and returns the trace context of each event."""

    __slots__ = ("_active", "_creates", "_events", "_span", "_spans", "_tracer")

    def __init__(self, spans: Spans, tracer: trace.Tracer, events: Sequence[Event]) -> None:
        self._spans = spans
        self._tracer = tracer
        self._events = events
        self._creates = len(events) > 1 and spans.tracing.create_spans
        self._active: CurrentSpan | None = None

    def __enter__(self) -> Sequence[tuple[str, str | None]]:
        # PRODUCER if the events carry the context of this span, CLIENT if each carries that of its own create span.
        self._span = self._tracer.start_span(
            self._spans.publish_name,
            kind=SpanKind.CLIENT if self._creates else SpanKind.PRODUCER,
            attributes=self._spans.publish,
        )
        carried = [headers(self._span.get_span_context())] * len(self._events)
        if not self._span.is_recording():  # the common case with a small ratio, so it must be cheap
            return carried
        if len(self._events) == 1:
            self._span.set_attribute("messaging.message.id", self._events[0].id)
        else:
            self._span.set_attribute("messaging.batch.message_count", len(self._events))
        if self._creates:
            carried = [self._create(event) for event in self._events]
        self._active = CurrentSpan(self._span)
        self._active.__enter__()
        return carried

    def _create(self, event: Event) -> tuple[str, str | None]:
        span = self._tracer.start_span(
            self._spans.create_name,
            trace.set_span_in_context(self._span),
            kind=SpanKind.PRODUCER,
            attributes={**self._spans.create, "messaging.message.id": event.id},
        )
        span.end()
        created = span.get_span_context()
        self._span.add_link(created, {"messaging.message.id": event.id})
        return headers(created)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._active is None:
            return
        self._active.__exit__(None, None, None)
        if exc is not None:
            _fail(self._span, type(exc).__qualname__)
        self._span.end()


class Processing:
    """Span of the handling of one event, from the first call of a handler to the end of the last."""

    __slots__ = ("_envelope", "_span", "_spans", "_tracer")

    def __init__(self, spans: Spans, tracer: trace.Tracer, envelope: Envelope) -> None:
        self._spans = spans
        self._tracer = tracer
        self._envelope = envelope
        self._span: Span = trace.INVALID_SPAN

    def begin(self) -> None:
        """Start the span. Call it when the first handler is called, so that the span excludes the time in the queue."""
        envelope, child = self._envelope, self._spans.tracing.parent == "child"
        origin = parse(envelope.traceparent, envelope.tracestate) if child else None
        self._span = self._tracer.start_span(
            self._spans.process_name,
            # Never the current context, which is that of the task that started the subscriber.
            _NO_CONTEXT if origin is None else trace.set_span_in_context(trace.NonRecordingSpan(origin), _NO_CONTEXT),
            kind=SpanKind.CONSUMER,
            attributes=self._spans.process,
        )
        if self._span.is_recording():  # with a small ratio most are not, so the attributes are set only here
            self._span.set_attribute("messaging.message.id", envelope.event.id)
            if origin is None:
                origin = parse(envelope.traceparent, envelope.tracestate)
            if origin is not None:
                self._span.add_link(origin)

    def active(self) -> CurrentSpan:
        """Return a context manager that makes this the current span, for one call of a handler."""
        return CurrentSpan(self._span)

    def record(self, error: BaseException, handler: str) -> None:
        """Record an exception of a handler, final or not, without its message."""
        if self._span.is_recording():
            fields = {"exception.type": _name(error), "exception.stacktrace": describe(error)}
            self._span.add_event("exception", {**fields, "jwt_events.handler": handler})

    def end(self, error: str | None) -> None:
        """End the span. ``error`` is the class of the exception that a handler finally failed with, if any."""
        if error is not None:
            _fail(self._span, error)
        self._span.end()


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


def _name(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _operation(name: str, kind: str, place: Attributes) -> Attributes:
    return {**place, "messaging.operation.name": name, "messaging.operation.type": kind}


def _place(transport: Transport) -> dict[str, str | int]:
    place: dict[str, str | int] = {"messaging.destination.name": transport.destination}
    if not isinstance(transport, Located):
        return place | {"messaging.system": transport.name}
    server = transport.server
    place |= {"messaging.system": server.system, "server.address": server.address}
    return place if server.port is None else place | {"server.port": server.port}


def _group(transport: Transport) -> dict[str, str | int]:
    group = transport.server.group if isinstance(transport, Located) else None
    return {} if group is None else {"messaging.consumer.group.name": group}


def _observer(provider: MeterProvider | None, send: Attributes, process: Attributes) -> Observer | None:
    if provider is None:
        return None
    return MessagingMetrics(provider.get_meter(_SCOPE, schema_url=_SCHEMA), send=send, process=process)
