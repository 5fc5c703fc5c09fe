"""Span of a signal of another system, from the request that brought it to the response.

The span of the publish is its child. Its attributes name the issuer, the kind and what became of it, and nobody.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from jwt_events.tracing._options import AnyTracing
from jwt_events.tracing._spans import CurrentSpan, Tracers


class SignalSpans(Tracers):
    """Creates the spans of an endpoint that receives signals.

    Args:
        tracing: the provider, or the options; ``None`` means the global provider.
        source: the issuer of the signals.

    Raises:
        InvalidOption: ``tracing`` is neither a ``TracerProvider`` nor a `Tracing`.
    """

    def __init__(self, tracing: AnyTracing | None, source: str) -> None:
        super().__init__(tracing)
        self._source = source

    def receiving(self) -> Receiving:
        """Return the span of a request, which starts when it is entered; it records nothing if it is not traced."""
        if (tracer := self._selected()) is None:
            return Receiving(INVALID_SPAN)
        attributes = {"jwt_events.signal.source": self._source}
        return Receiving(tracer.start_span("receive signal", kind=SpanKind.INTERNAL, attributes=attributes))


class Receiving:
    """Span of one request, and the current one while it is entered."""

    __slots__ = ("_active", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._active: CurrentSpan | None = None

    def __enter__(self) -> Self:
        if self._span is not INVALID_SPAN:  # one that is not recorded is passed on too: its trace is not recorded
            self._active = CurrentSpan(self._span)
            self._active.__enter__()
        return self

    def became(self, kind: str, outcome: str) -> None:
        """Say of what kind the signal is, and what became of it: words of fixed sets."""
        self._span.set_attribute("jwt_events.signal.kind", kind)
        self._span.set_attribute("jwt_events.signal.outcome", outcome)

    def replied(self, status: int, error: str | None) -> None:
        """Say what was replied; the error is the code of a refusal, or of a failure."""
        self._span.set_attribute("http.response.status_code", status)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._active is not None:
            self._active.__exit__(None, None, None)
            if exc is not None:
                self._span.set_attribute("error.type", type(exc).__qualname__)
                self._span.set_status(StatusCode.ERROR)
        self._span.end()
