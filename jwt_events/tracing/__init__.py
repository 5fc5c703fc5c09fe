"""OpenTelemetry traces and metrics of publishers, subscribers and endpoints for signals."""

from jwt_events.tracing._options import AnyTracing, Tracing, setup
from jwt_events.tracing._receiving import Receiving as Receiving
from jwt_events.tracing._receiving import SignalSpans as SignalSpans
from jwt_events.tracing._spans import Processing as Processing
from jwt_events.tracing._spans import Publishing as Publishing
from jwt_events.tracing._spans import Spans as Spans

# Names imported "as" themselves are for other packages of this library, not for its users.
__all__ = ["AnyTracing", "Tracing", "setup"]
