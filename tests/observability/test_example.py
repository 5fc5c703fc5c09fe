"""The example that shows how to watch: its files agree with the library and with one another, and its program runs."""

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

from jwt_events.instrumentation import Handled, Published
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
    """The labels of every metric that there is."""
    registry = CollectorRegistry()
    Metrics(registry)
    return vocabulary(registry)


class TestDashboard:
    """A panel that asks for what is not there would stay empty, which looks like peace."""

    @pytest.mark.parametrize("name", TARGETS)
    def test_asks_for_what_there_is(self, known: dict[str, set[str]], name: str) -> None:
        """Every metric, label and outcome in the expression of a panel exists, and the legend has what is left over."""
        expression, legend = TARGETS[name]["expr"], TARGETS[name]["legendFormat"]
        assert read(expression).names
        assert unknown(expression, known, VALUES) == []
        assert set(re.findall(r"{{(\w+)}}", legend)) == read(expression).groupings - {"le"}

    def test_shows_everything(self, known: dict[str, set[str]]) -> None:
        """There is no metric that the dashboard does not show."""
        shown = {name for target in TARGETS.values() for name in read(target["expr"]).names}
        assert {_family(name) for name in known} == {_family(name) for name in shown}

    def test_layout(self) -> None:
        """No two panels have the same number or lie over one another."""
        panels = DASHBOARD["panels"]
        places = [panel["gridPos"] for panel in panels]
        cells = [(place["x"] + x, place["y"] + y) for place in places for x in range(8) for y in range(7)]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len(set(cells)) == len(cells)
        assert all((place["w"], place["h"]) == (8, 7) and place["x"] <= 16 for place in places)
        assert all(panel["description"] for panel in panels)


class TestAlerts:
    """An alert that asks for what is not there never fires."""

    @pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
    def test_asks_for_what_there_is(self, known: dict[str, set[str]], alert: dict[str, Any]) -> None:
        """Every metric, label and outcome exists, and so do the labels that the summary names."""
        assert unknown(alert["expr"], known, VALUES) == []
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named <= (read(alert["expr"]).groupings or {"job", "instance"})

    def test_explained(self) -> None:
        """The page says what to do about each, and about no others."""
        assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


class TestPage:
    """A page that is wrong is read when there is no time to find out."""

    def test_names(self, known: dict[str, set[str]]) -> None:
        """Every metric that it names exists, with the labels that it says."""
        labels = {_family(name): labels for name, labels in known.items()}
        named = re.findall(r"`(jwt_events_\w+)(\{[^}`]*\})?", PAGE)
        assert named
        for name, inside in named:
            assert name in labels
            assert set(re.findall(r"(?<!\")\b[a-z]+", inside)) <= labels[name]
            assert unknown(f"{name}{inside}", labels, VALUES) == []

    def test_links(self) -> None:
        """Every file that it links to is there."""
        files = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
        assert files
        assert [file for file in files if not (EXAMPLE / file).exists()] == []


class TestCompose:
    """For those who have Docker."""

    def test_mounts(self) -> None:
        """What is mounted or built from exists, and is mounted where it is looked for."""
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
        """What the image is made of exists, and is where the build begins."""
        for line in re.findall(r"^COPY (.+) \S+$", (EXAMPLE / "Dockerfile").read_text(), re.MULTILINE):
            assert all((ROOT / name).exists() for name in line.split())

    def test_names(self) -> None:
        """Whoever is spoken to by name is a service, and Prometheus finds those that serve metrics."""
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
    """Run the program in one of its roles, stop it by SIGTERM; return what says whether series of it are above zero."""
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
        assert (process.returncode, out, err) == (0, b"", b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_app() -> None:
    """What the login service publishes comes into force in the shop, and both serve the numbers of it."""
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
