"""Cheap check: would a DEBUG line from a module be emitted?"""

from __future__ import annotations

from loguru import logger

_DEBUG = logger.level("DEBUG").no


def is_debugging(module: str) -> bool:
    """Cheap check: would a DEBUG line from this module be emitted?

    A line that is discarded still costs the better part of a microsecond, and there are two for every event. loguru has
    no public way to ask, so this reads its private state; if that fails, the line is written and loguru decides.
    """
    try:
        core = logger._core  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        is_on: bool = core.min_level <= _DEBUG and core.enabled.get(module, True)
    except AttributeError:
        return True
    return is_on
