"""OpenTelemetry traces and metrics of publishers and subscribers."""

from jwt_events.tracing._options import AnyTracing, Tracing, setup
from jwt_events.tracing._spans import Processing as Processing
from jwt_events.tracing._spans import Publishing as Publishing
from jwt_events.tracing._spans import Spans as Spans

# Names imported "as" themselves are for other packages of this library, not for its users.
__all__ = ["AnyTracing", "Tracing", "setup"]
