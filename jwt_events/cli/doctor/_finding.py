"""One finding about a server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about one topic.

    Attributes:
        topic: the topic.
        level: its severity.
        text: what was found.
        advice: what to do; empty if nothing.
    """

    topic: str
    level: Level
    text: str
    advice: str = ""
