"""OpenTelemetry traces and metrics."""

from jwt_events.tracing._options import AnyTracing, Tracing, setup

__all__ = ["AnyTracing", "Tracing", "setup"]
