"""Prometheus metrics of publishers, subscribers and revocation lists, and of a fleet."""

from jwt_events.metrics._fleet import FleetMetrics as FleetMetrics
from jwt_events.metrics._fleet import serve_fleet as serve_fleet
from jwt_events.metrics._prometheus import Metrics

# Names imported "as" themselves are for the command line only.
__all__ = ["Metrics"]
