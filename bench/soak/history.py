"""The history: every process appends to a file of its own, and the files are merged at the end.

A record is one line of JSON. All have ``t`` (seconds of the monotonic clock, which the processes of a machine share),
``who``, ``run`` (the incarnation of that process: 0, 1, …) and ``what``; the rest depends on ``what``:

=================  =================================================================================================
``run``            the settings, the first record: ``topology``, ``transport``, ``fsync``, ``replicas``, ``retention``,
                   ``seed``, ``events``, ``faults``, ``subscribers``, ``lists``
``invoke``         about to publish: ``id``, ``key``, ``n`` (counts the events of a key)
``ok``             accepted: ``id``, ``position``
``fail``           certainly not published: ``id``
``unknown``        perhaps published: ``id``
``ready``          a subscriber is subscribed from now on, or a publisher accepts a quota
``handled``        a handler returned: ``id``
``overlap``        two handlers of one key ran at the same time: ``id``
``gap``            a subscriber or a list reported a gap: ``since``, ``cause``, ``lost``, ``at`` (ms since 1970, as in
                   positions)
``checks``         a list was asked about tokens that were revoked, at ``asked`` or later: the ``id`` of each that it
                   would ``allow`` or knows as ``revoked``, and to how many it said ``stale``; whether it is ``fresh``
``proof``          a list was proven current ``as_of`` a time
``started``        a list that was started anew when ``known`` events were acknowledged would allow those in
                   ``missing``, was ``stale`` about so many, and reported ``gaps``
``stopped``        shut down gracefully
``fault``          ``number``, ``kind``, ``target``, ``phase`` (``begin`` or ``end``)
``dead_lettered``  found among the dead letters: ``id``
``broken``         something that must not happen: ``problem``
``end``            the last record
=================  =================================================================================================
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


class HistoryWriter:
    """Writes the records of one incarnation of one process.

    Every record is in the kernel when `append` returns, so that killing the process cannot lose it: what a handler
    records before it returns is in the history if the event was acknowledged.
    """

    def __init__(self, directory: Path, who: str, incarnation: int) -> None:
        self._common = {"who": who, "run": incarnation}
        # One file for each incarnation: the last line of a killed process may be incomplete.
        self._file = os.open(directory / f"{who}.{incarnation}{_SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, what: str, **facts: Any) -> None:
        """Append a record with the current time."""
        record = {"t": round(time.monotonic(), 6), **self._common, "what": what, **facts}
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class HistoryReader:
    """Reads the records in a directory while they are being written.

    Args:
        directory: where the histories are.
        who: the processes whose histories are read, as a pattern of their names.
    """

    def __init__(self, directory: Path, who: str = "*") -> None:
        self._directory = directory
        self._pattern = f"{who}.*{_SUFFIX}"
        self._offsets: dict[Path, int] = {}

    def read_new(self) -> list[Record]:
        """Return the records that were added since the last call; those of one process are in order."""
        found: list[Record] = []
        for path in sorted(self._directory.glob(self._pattern)):
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
