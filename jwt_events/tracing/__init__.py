"""OpenTelemetry traces and metrics."""

from jwt_events.tracing._options import AnyTracing, Tracing, setup
from jwt_events.tracing._spans import Processing as Processing
from jwt_events.tracing._spans import Publishing as Publishing
from jwt_events.tracing._spans import Spans as Spans

# What is imported "as" itself is for the packages that stand on this one.
__all__ = ["AnyTracing", "Tracing", "setup"]
