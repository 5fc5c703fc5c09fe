"""The chart: throughput of each competitor."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bench.report import Report
from bench.results import Results
from bench.rows import Row

# The rows of the chart: one panel each, in this order.
_SHOWN = (
    "publish-one-stream", "publish-200-stream", "publish-many", "drain",
    "group", "across-stream", "across-pubsub", "latency",
)  # fmt: skip
_COLUMNS = 2

_OURS, _BARE, _OTHERS = "#2f6fde", "#8c959f", "#d0d7de"
_TEXT, _FAINT, _FAILED = "#1f2328", "#656d76", "#cf222e"


def draw(report: Report, output: Path) -> None:
    """Draw the chart into a file.

    Raises:
        ValueError: no row of the chart was measured.
    """
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "jwt_events", "font.size": 9, "text.color": _TEXT})
    found = {row.id: (row, results) for row, results in report.rows()}
    panels = [found[name] for name in _SHOWN if name in found]
    if not panels:
        raise ValueError("no row of the chart was measured")
    pairs = [panels[index : index + _COLUMNS] for index in range(0, len(panels), _COLUMNS)]
    heights = [max(len(results) for _, results in pair) + 2 for pair in pairs]
    figure = Figure(figsize=(12, 0.27 * sum(heights)), facecolor="white", layout="constrained")
    grid = figure.add_gridspec(len(pairs), _COLUMNS, height_ratios=heights)
    for y, pair in enumerate(pairs):
        for x, (row, results) in enumerate(pair):
            _fill(figure.add_subplot(grid[y, x]), row, results)
    figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None, dpi=110)


def _fill(axes: Axes, row: Row, results: Results) -> None:
    """Draw the bars of a row; where its unit is a time per event, as events per second."""
    per_second = row.unit == "µs"
    names = list(results)[::-1]
    axes.set_title(f"{row.title} ({'events/s' if per_second else row.unit})", loc="left", size=9, weight="bold")
    for position, name in enumerate(names):
        value = results[name].value
        if value is None:
            axes.text(0, position, " failed: " + (results[name].problem or "")[:60], va="center", color=_FAILED, size=8)
            continue
        low, middle, high = (
            (1e6 / value.high, 1e6 / value.median, 1e6 / value.low)
            if per_second
            else (value.low, value.median, value.high)
        )
        colour = _OURS if name.startswith("jwt_events") else _BARE if name.startswith("redis-py") else _OTHERS
        axes.barh(position, middle, 0.72, color=colour)
        axes.plot((low, high), (position, position), color=_TEXT, linewidth=0.9)
        text = f"{middle:,.0f}" if per_second else f"{middle:.2f}"
        axes.annotate(text, (max(high, middle), position), (4, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(range(len(names)), names, size=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1.16 * axes.get_xlim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if per_second:  # thousands; a time is shown in its own unit
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.tick_params(colors=_FAINT, labelcolor=_TEXT, length=0, labelsize=8)
    axes.grid(axis="x", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
