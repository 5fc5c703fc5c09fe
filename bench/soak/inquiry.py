"""Revocation lists as processes: one runs on and is asked all the time, one is started anew again and again.

Both read from the histories of the publishers what was acknowledged, and ask about every event of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

from bench.soak.history import HistoryReader, HistoryWriter
from bench.soak.spec import KEY, MAX_STALENESS, WorkerSpec
from jwt_events import RedisStream, RevocationList, Verdict
from jwt_events.errors import TransportError
from jwt_events.transport.base import Gap

_EVERY = 0.02
"""Seconds between two rounds of questions."""

_OVERDUE_AFTER, _OVERDUE_EVERY = 10.0, 1.0
"""A token that is still let in so many seconds after its revocation was acknowledged is asked about less often."""

_AT_ONCE = 2_000
"""So many tokens are asked about without a pause, so that the list can read meanwhile."""

_PAUSE, _PAUSES, _MAX_PAUSE = 1.0, 5, 15.0
"""Between two starts of a list: so many seconds at least, or so many times as long as a start took, up to a maximum."""

_PUBLISHERS = "publisher-*"


def token_id(key: str, number: int) -> str:
    """Return which token the event of a key with this number revokes."""
    return f"{key}:{number}"


class Acknowledged:
    """The events that were acknowledged: id and token of each. Grows while publishers write their histories."""

    def __init__(self, directory: Path) -> None:
        self._reader = HistoryReader(directory, _PUBLISHERS)
        self._invoked: dict[str, str] = {}

    def new(self) -> Iterator[tuple[str, str]]:
        """Yield id and token of those that were acknowledged since the last call."""
        for record in self._reader.read_new():
            if record["what"] == "invoke":
                self._invoked[record["id"]] = token_id(record["key"], record["n"])
            elif record["what"] == "ok":
                yield record["id"], self._invoked.pop(record["id"])


class Inquiry:
    """Asks a list about the tokens whose revocation was acknowledged, until it refuses them.

    Args:
        revocations: the list.
        acknowledged: the events.
        writer: records the answers.
    """

    def __init__(self, revocations: RevocationList, acknowledged: Acknowledged, writer: HistoryWriter) -> None:
        self._revocations = revocations
        self._acknowledged = acknowledged
        self._writer = writer
        self._fresh: dict[str, tuple[str, float]] = {}  # token, and when it was first asked about
        self._overdue: dict[str, str] = {}
        self._overdue_due = 0.0
        self._proven_as_of = 0.0

    def ask(self) -> None:
        """Ask one round of questions, and record the answers."""
        now = time.monotonic()
        for name, token in self._acknowledged.new():
            self._fresh[name] = token, now
        asked = time.monotonic()
        proven = asked - self._revocations.staleness
        if proven > self._proven_as_of + _EVERY:
            self._proven_as_of = proven
            self._writer.append("proof", as_of=round(proven, 6))
        names = list(islice(self._fresh, _AT_ONCE))
        answers: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
        for name in names:
            token, since = self._fresh[name]
            verdict = self._check(token)
            answers[verdict].append(name)
            if verdict is Verdict.REVOKED:
                del self._fresh[name]
            elif verdict is Verdict.ALLOW and asked - since > _OVERDUE_AFTER:
                self._overdue[name] = self._fresh.pop(name)[0]
        if asked >= self._overdue_due:
            self._overdue_due = asked + _OVERDUE_EVERY
            for name, token in list(self._overdue.items()):
                verdict = self._check(token)
                answers[verdict].append(name)
                if verdict is Verdict.REVOKED:
                    del self._overdue[name]
        is_fresh = self._revocations.is_fresh
        if names or self._overdue or not is_fresh:
            self._writer.append(
                "checks",
                asked=round(asked, 6),
                allow=answers[Verdict.ALLOW],
                revoked=answers[Verdict.REVOKED],
                stale=len(answers[Verdict.STALE]),
                fresh=is_fresh,
            )

    def _check(self, token: str) -> Verdict:
        return self._revocations.check({"jti": token, "iat": 1})


async def run_list(spec: WorkerSpec, writer: HistoryWriter, stop: asyncio.Event) -> None:
    """Run a list until `stop` is set, and ask it all the time."""
    acknowledged = Acknowledged(Path(spec.directory))
    while not stop.is_set():
        with suppress(TransportError):
            async with _opened(spec, writer) as (revocations, _):
                inquiry = Inquiry(revocations, acknowledged, writer)
                inquiry.ask()
                writer.append("ready")
                while not stop.is_set():
                    inquiry.ask()
                    await _pause(stop, _EVERY)


async def run_starter(spec: WorkerSpec, writer: HistoryWriter, stop: asyncio.Event) -> None:
    """Start lists anew until `stop` is set: each must know all that was acknowledged before it was started."""
    acknowledged = Acknowledged(Path(spec.directory))
    events: dict[str, str] = {}
    writer.append("ready")
    while not stop.is_set():
        events.update(acknowledged.new())
        began, names = time.monotonic(), list(events)
        with suppress(TransportError):
            async with _opened(spec, writer) as (revocations, gaps):
                missing = []
                for number, name in enumerate(names):
                    if revocations.check({"jti": events[name], "iat": 1}) is Verdict.ALLOW:
                        missing.append(name)
                    if number % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                told = [{"since": gap.since, "cause": gap.cause, "at": at} for gap, at in gaps]
                unknown = 0 if revocations.is_fresh else len(names)
            writer.append("started", began=began, known=len(names), missing=missing, stale=unknown, gaps=told)
        # A start reads everything; the machine has other work as well.
        await _pause(stop, min(_MAX_PAUSE, max(_PAUSE, _PAUSES * (time.monotonic() - began))))


@asynccontextmanager
async def _opened(
    spec: WorkerSpec, writer: HistoryWriter
) -> AsyncIterator[tuple[RevocationList, list[tuple[Gap, int]]]]:
    """Open a list, and record its gaps; yields it and these gaps, each with its time."""
    gaps: list[tuple[Gap, int]] = []
    transport = RedisStream(spec.url, key=KEY, replicas=spec.replicas)
    revocations = RevocationList(transport, max_staleness=MAX_STALENESS)

    @revocations.on_gap
    def record_gap(gap: Gap) -> None:
        at = int(time.time() * 1000)
        gaps.append((gap, at))
        if spec.role == "list":
            writer.append("gap", since=gap.since, cause=gap.cause, lost=gap.lost, at=at)

    async with revocations:
        yield revocations, gaps


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
