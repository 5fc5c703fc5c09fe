"""Capture of log lines as text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger


class _Keep(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(level=0)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """Collect log lines of every level: those of the library with their fields, and those of the `logging` module."""
    lines: list[str] = []
    keep = _Keep(lines)
    root = logging.getLogger()
    level = root.level
    sink = logger.add(lambda line: lines.append(str(line)), level=0, format="{message} {extra} {exception}")
    logger.enable("jwt_events")
    root.addHandler(keep)
    root.setLevel(1)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(keep)
        logger.disable("jwt_events")
        logger.remove(sink)
