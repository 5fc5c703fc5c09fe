"""Capture of log records."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

import jwt_events

if TYPE_CHECKING:
    from loguru import Message, Record


class Records(list["Record"]):
    """List of log records, oldest first."""

    def of(self, message: str, level: str | None = None) -> list[dict[str, Any]]:
        """Return the fields of the records with this message, and this level unless it is ``None``."""
        return [
            record["extra"] for record in self if record["message"] == message and level in (None, record["level"].name)
        ]


@contextmanager
def recorded() -> Iterator[Records]:
    """Collect the log records of the library."""
    records = Records()

    def keep(message: Message) -> None:
        records.append(message.record)

    sink = logger.add(keep, level=0, format="{message}", catch=False)
    logger.enable("jwt_events")
    try:
        yield records
    finally:
        logger.disable("jwt_events")
        logger.remove(sink)


@cache
def _literals() -> frozenset[str]:
    """Return every string literal of the library."""
    root = Path(str(jwt_events.__file__)).parent
    return frozenset(
        node.value
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@contextmanager
def watching(*secrets: str) -> Iterator[Records]:
    """Collect the log records of the library; fail if a record, or one of another library, contains a secret.

    Fails, too, if a message is not a string literal of the library.
    """
    texts: list[str] = []

    class Keep(logging.Handler):
        """Keeps the text of records of the `logging` module."""

        def emit(self, record: logging.LogRecord) -> None:
            """Keep a record's text."""
            texts.append(f"{self.format(record)} {record.__dict__}")

    root, keep = logging.getLogger(), Keep(level=0)
    level = root.level
    root.addHandler(keep)
    root.setLevel(logging.DEBUG)
    try:
        with recorded() as records:
            yield records
    finally:
        root.setLevel(level)
        root.removeHandler(keep)
    texts += [f"{record['message']} {record['extra']} {record['exception']}" for record in records]
    assert [text for text in texts if any(secret in text for secret in secrets)] == []
    assert {record["message"] for record in records} <= _literals()
