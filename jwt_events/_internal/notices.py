"""What a program must not miss, although it has not turned on the logs of this library."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from functools import partial
from typing import TypeVar

from loguru import logger

_T = TypeVar("_T")

# Without handlers, the `logging` module writes warnings to standard error: its handler of last resort.
_standard = logging.getLogger("jwt_events")

_HOW_TO_SEE_MORE = "told once; loguru.logger.enable('jwt_events') shows all"

# How many different things one object tells at most.
_MAX_TOLD = 32


class Notices:
    """Lines of the log, which are told through the `logging` module, once each, while nobody sees the log.

    The log is seen if loguru has a sink for the level and the program has enabled ``jwt_events``. Nothing is told in
    two places.
    """

    def __init__(self) -> None:
        self._told: set[Hashable] = set()

    def tell(self, level: str, message: str, *, once: Hashable, **fields: object) -> None:
        """Write a line to the log; if it is not seen there, tell it as a warning, unless it was told before.

        Args:
            level: the level in the log.
            message: the constant message.
            once: the kind of thing that is told once.
            fields: the fields of the line; no secrets, as everywhere.
        """
        seen: list[bool] = []
        # loguru evaluates lazy fields exactly if it writes the line: there is no other public way to ask.
        lazy = {name: partial(_evaluated, value, seen) for name, value in fields.items()}
        logger.opt(lazy=True, depth=1).log(level, message, **lazy)
        if seen or once in self._told or len(self._told) >= _MAX_TOLD:
            return
        self._told.add(once)
        details = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        _standard.warning("jwt_events: %s: %s (%s)", message, details, _HOW_TO_SEE_MORE)


def _evaluated(value: _T, seen: list[bool]) -> _T:
    seen.append(True)
    return value
