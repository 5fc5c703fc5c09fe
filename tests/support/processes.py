"""Processes of this machine, as the kernel lists them in /proc. Each may end while it is being looked at."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)


def children(pid: int | str = "self") -> set[int]:
    """Return the child processes of a process that were not reaped; empty if the kernel does not list them."""
    found: set[int] = set()
    tasks = Path(f"/proc/{pid}/task")
    threads: list[str] = []
    with suppress(*_GONE):
        threads = os.listdir(tasks)  # noqa: PTH208 - a glob of pathlib raises where an entry has vanished
    for thread in threads:
        with suppress(*_GONE):
            found.update(map(int, (tasks / thread / "children").read_text().split()))
    return found


def descendants(pid: int) -> dict[int, str]:
    """Return the descendants of a process, each with its command line."""
    found: dict[int, str] = {}
    for child in children(pid):
        with suppress(*_GONE):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            found.update(descendants(child))
    return found


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except _GONE:
        return False
