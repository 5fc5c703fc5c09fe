"""Describes an error of the application without its message, which may quote a secret."""

from __future__ import annotations

import traceback
from functools import cache
from pathlib import Path

# Where this library is, and the standard library.
_HERE, _PYTHON = Path(__file__).parents[1], Path(traceback.__file__).parent


def describe(error: BaseException) -> str:
    """Return an error's class, the line of the program that led to it, and the name that was missing, if one was.

    If only its cause has been in the program, as where a time-out cancels it, that is named, too. Without their
    messages, which may quote a secret.
    """
    cause = error.__cause__
    if cause is not None and not _is_of_program(error) and _is_of_program(cause):
        return f"{type(error).__qualname__} from {describe(cause)}"
    missing = getattr(error, "name", None) if isinstance(error, AttributeError | NameError) else None
    what = f": no {missing!r}" if isinstance(missing, str) and missing.isidentifier() and len(missing) < 100 else ""
    kind = type(error).__qualname__
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return kind + what
    origins = [_package_of(code.co_filename) for code, _ in frames]
    if "" in origins:
        index = len(origins) - 1 - origins[::-1].index("")
    else:
        installed = [origin for origin in origins if origin is not None]
        index = len(origins) - 1 - (origins[::-1].index(installed[0]) if installed else 0)
    code, line = frames[index]
    return f"{kind} at {Path(code.co_filename).name}:{line} in {code.co_name}{what}"


def _is_of_program(error: BaseException) -> bool:
    """Whether a file of the program led to it."""
    return any(_package_of(frame.f_code.co_filename) == "" for frame, _ in traceback.walk_tb(error.__traceback__))


@cache
def _package_of(filename: str) -> str | None:
    """Return the installed package that a file belongs to: "" for a file of the program itself.

    ``None`` for this library and for Python's own, which lead to an error, but are seldom to blame for it.
    """
    path = Path(filename)
    for folder in ("site-packages", "dist-packages"):
        if folder in path.parts[:-1] and not path.is_relative_to(_HERE):
            return path.parts[path.parts.index(folder) + 1]
    return None if filename.startswith("<") or any(path.is_relative_to(root) for root in (_HERE, _PYTHON)) else ""
