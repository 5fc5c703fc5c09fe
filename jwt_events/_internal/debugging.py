"""Whether anybody reads the lines that are written for every event."""

from __future__ import annotations

from loguru import logger

_DEBUG = logger.level("DEBUG").no


def is_debugging(module: str) -> bool:
    """Return whether a line at DEBUG from this module would be read.

    A line that nobody reads still costs the better part of a microsecond, and there are two for every event. loguru has
    no way to ask, so this looks into it; where that fails, the line is written and loguru decides.
    """
    try:
        core = logger._core  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        return bool(core.min_level <= _DEBUG and core.enabled.get(module, True))
    except AttributeError:
        return True
