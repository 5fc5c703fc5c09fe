"""Partial parser of PromQL: the metrics and labels of an expression."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

_SELECTOR = re.compile(r"\b(jwt_events_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

# Labels that Prometheus adds to every series.
_ADDED = {"job", "instance"}


@dataclass(frozen=True)
class Query:
    """Metrics and labels of an expression.

    Attributes:
        matchers: for each metric name, the labels and values in its selector.
        groupings: labels of aggregations.
    """

    matchers: list[tuple[str, list[tuple[str, str]]]]
    groupings: set[str]

    @property
    def names(self) -> set[str]:
        """Names of the metrics."""
        return {name for name, _ in self.matchers}


def read(expression: str) -> Query:
    """Parse an expression."""
    return Query(
        matchers=[(name, _MATCHER.findall(inside)) for name, inside in _SELECTOR.findall(expression)],
        groupings={label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",")},
    )


def vocabulary(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the labels of each metric of a registry, by its names in a scrape."""
    found: dict[str, set[str]] = {}
    for instrument in set(registry._names_to_collectors.values()):
        assert isinstance(instrument, MetricWrapperBase)
        labels = {*instrument._labelnames, *_ADDED}
        for suffix in _SUFFIXES[str(instrument._type)]:
            found[f"{instrument._name}{suffix}"] = labels | {"le"} if suffix == "_bucket" else labels
    return found


def unknown(expression: str, known: dict[str, set[str]], values: dict[str, set[str]]) -> list[str]:
    """Return the metrics, labels and values of an expression that do not exist.

    Args:
        expression: a PromQL expression.
        known: the labels of every metric.
        values: all values of a label with a fixed set of values, by ``metric.label``.
    """
    query = read(expression)
    wrong = sorted(query.names - known.keys())
    for name, matchers in query.matchers:
        wrong += [f"{name}{{{label}}}" for label, _ in matchers if label not in known.get(name, {label})]
        wrong += [
            f'{name}{{{label}="{value}"}}'
            for label, alternatives in matchers
            for value in alternatives.split("|")
            if value not in values.get(f"{name}.{label}", {value})
        ]
    shared = set.intersection(*(known.get(name, set()) for name in query.names)) if query.names else set()
    return wrong + sorted(query.groupings - (shared or _ADDED))
