"""Metrics and alerts in a real Prometheus. Run by `make test-observability` only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from bench.prometheus import Prometheus, program
from jwt_events import Event, MemoryTransport, Publisher, Retry, SessionCreated, Subscriber, TokenRevoked
from jwt_events.metrics import Metrics
from tests.support.servers import shared
from tests.support.waiting import block_until, scaled, wait_until

pytestmark = pytest.mark.prometheus

EXAMPLE = Path(__file__).parents[2] / "examples" / "observability"


@contextmanager
def _served(registry: CollectorRegistry) -> Iterator[int]:
    """Serve a registry over HTTP, and return the port."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _run(metrics: Metrics) -> None:
    """Publish 100 events, of which a handler fails ten finally and ten more on the first attempt."""
    transport, tries = MemoryTransport(), set()
    subscriber = Subscriber(transport, metrics=metrics, retry=Retry(attempts=2, initial=0.001))

    @subscriber.on()
    async def enforce(event: Event) -> None:
        reason = getattr(event, "reason", None)
        if reason == "never" or (reason == "later" and event.id not in tries):
            tries.add(event.id)
            raise ValueError

    reasons = ["never"] * 10 + ["later"] * 10 + [None] * 50
    async with subscriber, Publisher(transport, metrics=metrics) as publisher:
        await publisher.publish_many([TokenRevoked(token_id="t", reason=reason) for reason in reasons])
        await publisher.publish_many([SessionCreated(session_id="s", user_id="u") for _ in range(30)])
        await wait_until(lambda: subscriber.stats.handled + subscriber.stats.failed == 100)


def test_numbers() -> None:
    """The results of queries after a known run are exact."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    view = metrics.view("stream", "jwt:events", staleness=lambda: 3.5)
    view.rules("token", 42)
    view.checked("revoked", 7)
    asyncio.run(_run(metrics))
    with _served(registry) as port, Prometheus({"test": [port]}, every=0.2) as prometheus:

        def value(expression: str) -> dict[str, float]:
            found = prometheus.query(expression)
            return {",".join(series["metric"].values()): float(series["value"][1]) for series in found}

        block_until(lambda: prometheus.query("jwt_events_published_total"), what="a scrape")
        assert value('sum by (type) (jwt_events_published_total{outcome="published"}) > 0') == {
            "token_revoked": 70,
            "session_created": 30,
        }
        assert value("sum by (outcome) (jwt_events_handled_total) > 0") == {"handled": 90, "retried": 20, "failed": 10}
        assert value("sum(jwt_events_dead_lettered_total)") == {"": 10}
        assert value("sum(jwt_events_propagation_seconds_count)") == {"": 90}
        assert value("sum(jwt_events_publish_duration_seconds_count)") == {"": 2}
        assert value("sum(jwt_events_in_flight)") == {"": 0}
        assert value("max by (destination) (jwt_events_staleness_seconds)") == {"jwt:events": 3.5}
        assert value("max by (kind) (jwt_events_revocation_rules)") == {"token": 42}
        assert value("sum by (verdict) (jwt_events_revocation_checks_total)") == {"revoked": 7}
        (quantile,) = value("histogram_quantile(0.99, sum by (le) (jwt_events_propagation_seconds_bucket))").values()
        assert 0.0002 <= quantile <= 60
    view.close()


@contextmanager
def _app(role: str, url: str) -> Iterator[int]:
    """Run the example's program in one role, and return the port of its metrics."""
    environment = os.environ | {"JWT_EVENTS_URL": url, "METRICS_PORT": "0", "RATE": "100"}
    with Popen([sys.executable, EXAMPLE / "app.py", role], env=environment, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rpartition(" ")[2])
        finally:
            process.terminate()


# The example opens no group, no issuer's keys and no endpoint for signals, and has no exporter of a fleet: of these the
# expressions are checked alone.
_NOT_IN_THE_EXAMPLE = re.compile(r"jwt_events_(group|sign(ing_key|al)|fleet|region)")


def test_dashboard() -> None:
    """Every expression of the dashboard and the alerts is valid, and returns numbers where data is expected."""
    panels = json.loads((EXAMPLE / "dashboard.json").read_text())["panels"]
    with ExitStack() as stack:
        server = stack.enter_context(shared("valkey"))
        ports = {role: [stack.enter_context(_app(role, server.url))] for role in ("login", "shop")}
        prometheus = stack.enter_context(Prometheus(ports, every=0.2, rules=[EXAMPLE / "alerts.yml"]))
        for panel in panels:
            for target in panel["targets"]:
                expression = target["expr"].replace("$job", ".+").replace("$__rate_interval", "1m")
                if _NOT_IN_THE_EXAMPLE.search(expression):
                    prometheus.query(expression)
                else:
                    block_until(partial(prometheus.query, expression), within=20, what=expression)
        for alert in yaml.safe_load((EXAMPLE / "alerts.yml").read_text())["groups"][0]["rules"]:
            prometheus.query(alert["expr"])
        firing = {series["metric"]["alertname"] for series in prometheus.query('ALERTS{alertstate="firing"}')}
        assert firing <= {"JWTEventsDeadLetters"}  # its handler has weak moments


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    """The rules and the configuration are valid, and every alert fires exactly when it should."""
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=scaled(60)
    )
    assert done.returncode == 0, done.stdout + done.stderr
