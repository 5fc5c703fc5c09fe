"""Prometheus metrics of publishers, subscribers and revocation lists, and of a fleet."""

from jwt_events.metrics._fleet import FleetMetrics, serve_fleet
from jwt_events.metrics._prometheus import Metrics

__all__ = ["FleetMetrics", "Metrics", "serve_fleet"]
