"""The observability example: its files agree with the library and with one another, and its program runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from jwt_events.instrumentation import Handled, LookedUp, Published
from jwt_events.metrics import Metrics
from jwt_events.revocation import Verdict
from tests.support.promql import read, unknown, vocabulary
from tests.support.servers import embedded
from tests.support.waiting import scaled, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "observability"
DASHBOARD = json.loads((EXAMPLE / "dashboard.json").read_text())
ALERTS = yaml.safe_load((EXAMPLE / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
PAGE = (EXAMPLE / "README.md").read_text()

VALUES = {
    "jwt_events_published_total.outcome": {outcome.value for outcome in Published},
    "jwt_events_handled_total.outcome": {outcome.value for outcome in Handled},
    "jwt_events_signing_key_lookups_total.outcome": {outcome.value for outcome in LookedUp},
    "jwt_events_revocation_checks_total.verdict": {verdict.value for verdict in Verdict},
}


def _targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target


def _family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


TARGETS = dict(_targets())


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """The labels of every metric."""
    registry = CollectorRegistry()
    Metrics(registry)
    return vocabulary(registry)


class TestDashboard:
    """The dashboard. A panel that queries a metric that does not exist would stay empty, which looks healthy."""

    @pytest.mark.parametrize("name", TARGETS)
    def test_asks_for_what_there_is(self, known: dict[str, set[str]], name: str) -> None:
        """Every metric, label and outcome in a panel's expression exists, and the legend uses the remaining labels."""
        expression, legend = TARGETS[name]["expr"], TARGETS[name]["legendFormat"]
        assert read(expression).names
        assert unknown(expression, known, VALUES) == []
        assert set(re.findall(r"{{(\w+)}}", legend)) == read(expression).groupings - {"le"}

    def test_shows_everything(self, known: dict[str, set[str]]) -> None:
        """The dashboard shows every metric."""
        shown = {name for target in TARGETS.values() for name in read(target["expr"]).names}
        assert {_family(name) for name in known} == {_family(name) for name in shown}

    def test_layout(self) -> None:
        """No two panels have the same id or overlap."""
        panels = DASHBOARD["panels"]
        places = [panel["gridPos"] for panel in panels]
        cells = [(place["x"] + x, place["y"] + y) for place in places for x in range(8) for y in range(7)]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len(set(cells)) == len(cells)
        assert all((place["w"], place["h"]) == (8, 7) and place["x"] <= 16 for place in places)
        assert all(panel["description"] for panel in panels)


class TestAlerts:
    """The alerts. One that queries a metric that does not exist would never fire."""

    @pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
    def test_asks_for_what_there_is(self, known: dict[str, set[str]], alert: dict[str, Any]) -> None:
        """Every metric, label and outcome exists, as do the labels in the summary."""
        assert unknown(alert["expr"], known, VALUES) == []
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named <= (read(alert["expr"]).groupings or {"job", "instance"})

    def test_explained(self) -> None:
        """The page has a section for each alert, and no other."""
        assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


class TestPage:
    """The page for operators, which must be correct when an alert fires."""

    def test_names(self, known: dict[str, set[str]]) -> None:
        """Every metric on the page exists, with these labels."""
        labels = {_family(name): labels for name, labels in known.items()}
        named = re.findall(r"`(jwt_events_\w+)(\{[^}`]*\})?", PAGE)
        assert named
        for name, inside in named:
            assert name in labels
            assert set(re.findall(r"(?<!\")\b[a-z]+", inside)) <= labels[name]
            assert unknown(f"{name}{inside}", labels, VALUES) == []

    def test_links(self) -> None:
        """Every linked file exists."""
        files = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
        assert files
        assert [file for file in files if not (EXAMPLE / file).exists()] == []


class TestCompose:
    """The files for Docker."""

    def test_mounts(self) -> None:
        """Mounted files and build contexts exist, and are mounted where the services expect them."""
        mounts: dict[str, str] = {}
        for service in COMPOSE["services"].values():
            for volume in service.get("volumes", []):
                here, there, mode = volume.split(":")
                assert (EXAMPLE / here).is_file()
                assert mode == "ro"
                mounts[there] = here
            if "build" in service:
                assert (EXAMPLE / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        (provider,) = yaml.safe_load((EXAMPLE / "grafana" / "dashboards.yml").read_text())["providers"]
        assert mounts[f"{provider['options']['path']}/dashboard.json"] == "./dashboard.json"
        home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert mounts[home] == "./dashboard.json"

    def test_copied(self) -> None:
        """The files that the image copies exist in its build context."""
        for line in re.findall(r"^COPY (.+) \S+$", (EXAMPLE / "Dockerfile").read_text(), re.MULTILINE):
            assert all((ROOT / name).exists() for name in line.split())

    def test_names(self) -> None:
        """Every host name is a service, and Prometheus scrapes the services that serve metrics."""
        services = COMPOSE["services"]
        texts = [json.dumps(services), *(path.read_text() for path in (EXAMPLE / "grafana").glob("*.yml"))]
        hosts = {host for text in texts for host in re.findall(r"\w+://([\w-]+):\d+", text)}
        assert hosts <= services.keys()
        jobs = yaml.safe_load((EXAMPLE / "prometheus.yml").read_text())["scrape_configs"]
        serving = {name for name, service in services.items() if "METRICS_PORT" in service.get("environment", {})}
        assert {job["job_name"] for job in jobs} == serving
        for job in jobs:
            (found,) = job["dns_sd_configs"]
            assert found["names"] == [job["job_name"]]
            assert services[job["job_name"]]["environment"]["METRICS_PORT"] == str(found["port"])


@asynccontextmanager
async def _app(role: str, url: str) -> AsyncIterator[Callable[..., Awaitable[bool]]]:
    """Run the program in one role, and stop it by SIGTERM; yield a check whether its series are above zero."""
    environment = os.environ | {"JWT_EVENTS_URL": url, "METRICS_PORT": "0", "RATE": "100", "PYTHONWARNINGS": "error"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE / "app.py", role, env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(scaled(30)):
            line = (await process.stdout.readline()).decode()
        address = f"http://127.0.0.1:{line.rpartition(' ')[2].strip()}/metrics"
        async with httpx.AsyncClient(trust_env=False) as browser:

            async def has(*series: str) -> bool:
                lines = (await browser.get(address)).text.splitlines()
                values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
                return all(float(values.get(name, 0)) > 0 for name in series)

            yield has
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(scaled(30)):
            out, err = await process.communicate()
        assert (process.returncode, out) == (0, b"")
        assert {line.split(b": ")[1][:14] for line in err.splitlines()} <= {b"handler failed", b"dead letter"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_app() -> None:
    """Events of the login service take effect in the shop, and both serve metrics of them."""
    async with embedded("valkey") as server, AsyncExitStack() as stack:
        shop = await stack.enter_async_context(_app("shop", server.url))
        login = await stack.enter_async_context(_app("login", server.url))
        published = 'jwt_events_published_total{outcome="published",transport="stream",type="token_revoked"}'
        handled = 'jwt_events_handled_total{handler="close_cart",outcome="handled",type="token_revoked"}'
        checked = 'jwt_events_revocation_checks_total{verdict="allow"}'
        await wait_until(lambda: login(published), what="numbers of the publisher")
        await wait_until(
            lambda: shop(handled, checked, 'jwt_events_staleness_seconds{destination="jwt:events"}'),
            what="numbers of the subscriber",
        )
