"""Metrics of a fleet, for one exporter that looks at the registry of instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, start_http_server

if TYPE_CHECKING:
    from jwt_events.fleet import Standing


class FleetMetrics:
    """How many instances of each service stand how, and how far they are behind."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._instances = Gauge(
            "jwt_events_fleet_instances",
            "Registered instances, by how they stand.",
            ("service", "status"),
            registry=registry,
        )
        self._behind = Gauge(
            "jwt_events_fleet_behind_seconds",
            "How far the instance that is furthest behind is behind the newest event.",
            ("service",),
            registry=registry,
        )

    def show(self, standings: Sequence[Standing]) -> None:
        """Show these instances, and no others."""
        self._instances.clear()
        self._behind.clear()
        for (service, status), count in Counter((one.service, one.status) for one in standings).items():
            self._instances.labels(service, status.value).set(count)
        for service in {one.service for one in standings}:
            # What is gone or closed will never catch up, and lets nothing in.
            behind = [one.behind for one in standings if one.service == service and not one.status.is_over]
            self._behind.labels(service).set(max(behind, default=0.0))


@contextmanager
def serve_fleet(host: str, port: int) -> Iterator[tuple[FleetMetrics, int]]:
    """Serve the metrics of a fleet by HTTP, in a thread; yield them and the port.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry()
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield FleetMetrics(registry), server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
