"""What happened: every process appends to a file of its own, and the files are merged in the end.

A record is one line of JSON. All have ``t`` (seconds of the monotonic clock, which the processes of a machine share),
``who``, ``run`` (which life of that process: 0, 1, …) and ``what``; the rest depends on ``what``:

==============  =================================================================================================
``run``         the settings, first of all: ``transport``, ``fsync``, ``seed``, ``events``, ``faults``, ``subscribers``
``invoke``      about to publish: ``id``, ``key``, ``n`` (counts the events of a key)
``ok``          accepted: ``id``, ``position``
``fail``        surely not published: ``id``
``unknown``     perhaps published: ``id``
``ready``       a subscriber listens from now on, or a publisher can be told to begin
``handled``     a handler ended well: ``id``
``overlap``     two handlers of one key at the same time: ``id``
``gap``         a subscriber was told of a gap: ``since``, ``cause``, ``lost``, ``at`` (ms since 1970, as in positions)
``left``        ended in good order
``fault``       ``number``, ``kind``, ``target``, ``phase`` (``begin`` or ``end``)
``buried``      found among the dead letters: ``id``
``broken``      something that must not happen: ``problem``
``end``         nothing more is expected
==============  =================================================================================================
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

Record = dict[str, Any]

_SUFFIX = ".jsonl"


class Diary:
    """The records of one life of one process.

    Every record is with the kernel when `note` returns, so that killing the process cannot take it back: what a handler
    noted before it returned is in the history if the event was acknowledged.
    """

    def __init__(self, directory: Path, who: str, run: int) -> None:
        self._always = {"who": who, "run": run}
        # A file for each life: the last line of one that was killed may be torn.
        self._file = os.open(directory / f"{who}.{run}{_SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, **facts: Any) -> None:
        """Append a record, dated now."""
        record = {"t": round(time.monotonic(), 6), **self._always, "what": what, **facts}
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Reader:
    """Reads the diaries of a directory while they are being written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}

    def news(self) -> list[Record]:
        """Return what was added since the last time; the records of one process are in order."""
        found: list[Record] = []
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            offset = self._offsets.get(path, 0)
            if path.stat().st_size == offset:
                continue
            with path.open("rb") as file:
                file.seek(offset)
                complete, newline, _ = file.read().rpartition(b"\n")
            self._offsets[path] = offset + len(complete) + len(newline)
            found.extend(map(json.loads, complete.splitlines()))
        return found


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as one history, in the order of time."""
    with path.open("w") as file:
        for record in sorted(records, key=itemgetter("t")):
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def read(path: Path) -> list[Record]:
    """Read a history."""
    with path.open() as file:
        return [json.loads(line) for line in file]
