"""Prometheus metrics of publishers, subscribers and revocation lists."""

from jwt_events.metrics._prometheus import Metrics

__all__ = ["Metrics"]
