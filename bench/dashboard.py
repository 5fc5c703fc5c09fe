"""Draws the dashboard of examples/observability from a real run with faults.

``python -m bench.dashboard [--output FILE]``; ``make dashboard`` installs what it needs. The example's program runs as
a login service and two shops, a real Prometheus scrapes them, and every panel shows what its own expressions return.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullLocator
from redis.asyncio import Redis

from bench.prometheus import Prometheus
from jwt_events.embedded import EmbeddedServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "observability"

SECONDS = 90
KILLED, BACK, POISONED = 30, 36, 60
WINDOW = 5  # Grafana's $__rate_interval, in seconds: four scrapes, and one more than a bar is wide
BAR = WINDOW - 1
SCRAPED = WINDOW + 5  # seconds after which rates are known: Prometheus takes five to start

# Colours of Grafana's dark theme.
GROUND, CARD, TEXT, FAINT = "#111217", "#1b1d22", "#d5d7dc", "#8e929b"
AWAY = "#352229"  # the time without a server
COLOURS = ("#f2cc0c", "#5794f2", "#b877d9", "#73bf69", "#ff9830", "#8ab8ff")
GOOD, BAD, DOUBTFUL = "#73bf69", "#f2495c", "#ff9830"
MEANT = {"published": GOOD, "handled": GOOD, "allow": GOOD, "failed": BAD, "stale": DOUBTFUL, "unknown": DOUBTFUL}


@dataclass(frozen=True)
class Line:
    """One series of a panel: seconds since the beginning of the run, and values."""

    legend: str
    times: list[int]
    values: list[float]


@asynccontextmanager
async def app(role: str, url: str) -> AsyncIterator[int]:
    """Run the example's program in one of its roles; yield the port of its metrics."""
    environment = os.environ | {"JWT_EVENTS_URL": url, "METRICS_PORT": "0", "RATE": "40"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE / "app.py", role, env=environment, stdout=PIPE
    )
    assert process.stdout is not None
    first = await process.stdout.readline()
    rest = asyncio.create_task(process.stdout.read())
    try:
        yield int(first.split()[-1])
    finally:
        process.terminate()
        await asyncio.gather(process.wait(), rest)


async def inject_faults(server: EmbeddedServer) -> None:
    """Inject the faults at their times, and return at the end of the run."""
    url = server.url
    await asyncio.sleep(KILLED)
    os.kill(server.pid, signal.SIGKILL)
    await server.aclose()
    await asyncio.sleep(BACK - KILLED)
    await server.__aenter__()
    await asyncio.sleep(POISONED - BACK)
    async with Redis.from_url(url) as client:
        for number in range(12):
            await client.xadd("jwt:events", {"event": b"not JSON" if number % 3 else b"{}"})
    await asyncio.sleep(SECONDS - POISONED)


async def run(panels: list[dict[str, Any]]) -> list[list[Line]]:
    """Carry out the run; return the series of each panel."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with EmbeddedServer(port=port) as server, AsyncExitStack() as stack:
        instances = {
            name: await stack.enter_async_context(app(name.partition("-")[0], server.url))
            for name in ("shop-1", "shop-2", "login-1")
        }
        prometheus = stack.enter_context(
            Prometheus({"login": [instances["login-1"]], "shop": [instances["shop-1"], instances["shop-2"]]})
        )
        await asyncio.sleep(SCRAPED)
        began = time.time()
        await inject_faults(server)
        names = {f"127.0.0.1:{port}": name for name, port in instances.items()}
        return [list(lines(prometheus, panel, began, names)) for panel in panels]


def lines(prometheus: Prometheus, panel: dict[str, Any], began: float, names: Mapping[str, str]) -> Iterator[Line]:
    """Query the expressions of a panel."""
    first, step = (BAR, BAR) if style(panel) == "bars" else (0, 1)
    for target in panel["targets"]:
        expression = target["expr"].replace("$job", ".+").replace("$__rate_interval", f"{WINDOW}s")
        for series in prometheus.query_range(expression, start=began, end=began + SECONDS, step=step):
            legend = target["legendFormat"]
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", names.get(value, value))
            found = {round(at - began): float(value) for at, value in series["values"]}
            times = range(first, SECONDS + 1, step)
            values = [found.get(at, math.nan) for at in times]
            yield Line(legend, list(times), [value if math.isfinite(value) else math.nan for value in values])


def style(panel: dict[str, Any]) -> str:
    """Return how a panel is drawn: ``line`` or ``bars``."""
    return str(panel["fieldConfig"]["defaults"]["custom"]["drawStyle"])


def draw(panels: list[dict[str, Any]], shown: list[list[Line]], output: Path) -> None:
    """Draw all panels at their grid positions."""
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "jwt_events",
            "font.size": 8,
            "text.color": TEXT,
            "axes.edgecolor": FAINT,
        }
    )
    columns, rows = 24, max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(13, rows * 0.36), facecolor=GROUND)
    for panel, found in zip(panels, shown, strict=True):
        place = panel["gridPos"]
        x, y = place["x"] / columns, 1 - (place["y"] + place["h"]) / rows
        width, height = place["w"] / columns, place["h"] / rows
        card = Rectangle(
            (x + 0.003, y + 0.003), width - 0.006, height - 0.006, transform=figure.transFigure, color=CARD, zorder=-1
        )
        figure.add_artist(card)
        figure.text(x + 0.011, y + height - 0.022, panel["title"], weight="bold", size=9)
        axes = figure.add_axes((x + 0.042, y + 0.047, width - 0.056, height - 0.078), facecolor=CARD)
        fill(axes, panel, found)
    figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None, dpi=100)


def fill(axes: Axes, panel: dict[str, Any], found: list[Line]) -> None:
    """Draw the series of one panel that are ever above zero."""
    seen = sorted((line for line in found if any(value > 0 for value in line.values)), key=lambda line: line.legend)
    axes.axvspan(KILLED, BACK, color=AWAY, linewidth=0)
    colours = cycle(COLOURS)
    coloured = [(line, MEANT.get(line.legend) or next(colours)) for line in seen]
    if style(panel) == "bars":
        fill_bars(axes, coloured)
    else:
        for line, colour in coloured:
            axes.plot(line.times, line.values, color=colour, linewidth=1.2, label=line.legend)
    scale(axes, panel["fieldConfig"]["defaults"])
    axes.tick_params(colors=FAINT, length=0, labelsize=7)
    axes.grid(color="#2c2f36", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if seen:
        below = {"loc": "upper left", "bbox_to_anchor": (-0.05, -0.1), "ncols": 6, "frameon": False}
        axes.legend(**below, fontsize=7, labelcolor=TEXT, handlelength=1.2, columnspacing=1.2)


def fill_bars(axes: Axes, coloured: list[tuple[Line, str]]) -> None:
    """Draw stacked bars."""
    bottom = [0.0] * (SECONDS // BAR)
    for line, colour in coloured:
        heights = [0.0 if math.isnan(value) else value for value in line.values]
        middles = [at - BAR / 2 for at in line.times]  # each shows the time before it
        axes.bar(middles, heights, BAR * 0.8, bottom, color=colour, label=line.legend)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    place = {"transform": axes.get_xaxis_transform(), "rotation": 90, "ha": "center", "va": "center"}
    axes.text((KILLED + BACK) / 2, 0.5, "no server", color=BAD, size=7, **place)


def scale(axes: Axes, defaults: dict[str, Any]) -> None:
    """Set the range and the units of the axes."""
    if defaults["custom"].get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=defaults["unit"] == "short"))
    for step in defaults.get("thresholds", {}).get("steps", [])[1:]:
        axes.axhline(step["value"], color=step["color"], linewidth=0.8, linestyle="--")
    axes.yaxis.set_major_formatter(EngFormatter("s" if defaults["unit"] == "s" else "", sep=" "))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at // 60:.0f}:{at % 60:02.0f}"))
    axes.set_xlim(0, SECONDS)
    axes.set_xticks(range(0, SECONDS + 1, 15))


def main() -> None:
    """Run the example, and draw the dashboard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=EXAMPLE / "dashboard.svg")
    arguments = parser.parse_args()
    panels = json.loads((EXAMPLE / "dashboard.json").read_text())["panels"]
    draw(panels, asyncio.run(run(panels)), arguments.output)
    print("drawn:", arguments.output)


if __name__ == "__main__":
    main()
