"""Prometheus metrics."""

from jwt_events.metrics._prometheus import Metrics

__all__ = ["Metrics"]
