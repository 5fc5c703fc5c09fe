"""Reading PromQL, as far as a test needs it: which metrics and labels an expression is about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

_SELECTOR = re.compile(r"\b(jwt_events_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

# What Prometheus adds to everything that it scrapes.
_ADDED = {"job", "instance"}


@dataclass(frozen=True)
class Question:
    """What an expression asks about.

    Attributes:
        matchers: for each metric by its name, as it is scraped, the labels and values that are asked for.
        groupings: the labels by which results are put together.
    """

    matchers: list[tuple[str, list[tuple[str, str]]]]
    groupings: set[str]

    @property
    def names(self) -> set[str]:
        """The metrics."""
        return {name for name, _ in self.matchers}


def read(expression: str) -> Question:
    """Take an expression apart."""
    return Question(
        matchers=[(name, _MATCHER.findall(inside)) for name, inside in _SELECTOR.findall(expression)],
        groupings={label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",")},
    )


def vocabulary(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the labels of each metric of a registry, by each name that it has when it is scraped."""
    found: dict[str, set[str]] = {}
    for instrument in set(registry._names_to_collectors.values()):
        assert isinstance(instrument, MetricWrapperBase)
        labels = {*instrument._labelnames, *_ADDED}
        for suffix in _SUFFIXES[str(instrument._type)]:
            found[f"{instrument._name}{suffix}"] = labels | {"le"} if suffix == "_bucket" else labels
    return found


def unknown(expression: str, known: dict[str, set[str]], values: dict[str, set[str]]) -> list[str]:
    """Return what an expression asks for and nobody has.

    Args:
        expression: in PromQL.
        known: the labels of every metric.
        values: all values of a label, by ``metric.label``, where there is a fixed set of them.
    """
    question = read(expression)
    wrong = sorted(question.names - known.keys())
    for name, matchers in question.matchers:
        wrong += [f"{name}{{{label}}}" for label, _ in matchers if label not in known.get(name, {label})]
        wrong += [
            f'{name}{{{label}="{value}"}}'
            for label, alternatives in matchers
            for value in alternatives.split("|")
            if value not in values.get(f"{name}.{label}", {value})
        ]
    shared = set.intersection(*(known.get(name, set()) for name in question.names)) if question.names else set()
    return wrong + sorted(question.groupings - (shared or _ADDED))
