"""One run from beginning to end: start the processes, publish under faults, wait for the last event."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.soak.history import HistoryReader, HistoryWriter, Record
from bench.soak.nemesis import STOP_WITHIN, Nemesis
from bench.soak.plan import Fault, make_plan
from bench.soak.processes import Server, Worker
from bench.soak.verdict import HistorySummary
from bench.soak.worker import KEY, WorkerSpec
from jwt_events import DeadLetters, RedisStream
from jwt_events.envelope import decode

_POLL_INTERVAL = 0.02
_STALLED_AFTER = 60.0
"""Seconds without progress after which the run is aborted: no fault lasts that long."""

_LOST_AFTER = 10.0
"""Seconds without progress after which unhandled events count as lost: longer than any claim needs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        events: how many events must be acknowledged.
        faults: how many faults to inject meanwhile.
        seed: of the plan.
        transport: ``stream`` (every subscriber receives every event) or ``group`` (they share the events).
        fsync: what the server keeps when it is killed: ``always`` all, ``everysec`` all but a second, ``no`` nothing.
        publishers: the number of processes that publish.
        subscribers: the number of processes that handle.
        rate: events per second that all publishers send together, at most.
        verbose: whether the processes log what the library does.
    """

    events: int
    faults: int
    seed: int = 1
    transport: str = "stream"
    fsync: str = "always"
    publishers: int = 2
    subscribers: int = 3
    rate: float = 2_500.0
    verbose: bool = False

    @property
    def max_seconds(self) -> float:
        """Seconds after which the run is aborted."""
        return 120.0 + 8.0 * self.faults + 4.0 * self.events / self.rate

    @property
    def events_per_fault(self) -> float:
        """The number of events for each fault."""
        return self.events / (self.faults + 1)


class Stalled(Exception):
    """The run made no progress."""


class Runner:
    """Carries out one run.

    Args:
        settings: the settings of the run.
        directory: an empty directory for histories, logs and data.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._publishers = [f"publisher-{number + 1}" for number in range(settings.publishers)]
        self._subscribers = [f"subscriber-{number + 1}" for number in range(settings.subscribers)]
        self._workers: dict[str, Worker] = {}
        self._reader = HistoryReader(directory)
        self._writer = HistoryWriter(directory, "nemesis", 0)
        self._restarts: set[asyncio.Task[None]] = set()
        self._allowed = 0
        self.history: list[Record] = []
        self.summary = HistorySummary()

    async def run(self) -> None:
        """Carry out the run. When cancelled, it ends all its processes."""
        facts = asdict(self._settings) | {"subscribers": self._subscribers}
        self._writer.append("run", **facts)
        async with AsyncExitStack() as stack:
            server = Server(self._directory, self._settings.fsync)
            await server.start()
            stack.push_async_callback(server.aclose)
            await stack.enter_async_context(self._observing(server))
            stack.push_async_callback(self._kill_workers)
            try:
                async with asyncio.timeout(self._settings.max_seconds):
                    await self._execute(server)
            except (Stalled, TimeoutError) as error:
                self._writer.append("broken", problem=str(error) or f"no end after {self._settings.max_seconds:.0f} s")
            self._writer.append("end")
        self._read_history()

    async def _execute(self, server: Server) -> None:
        for role, names in (("publisher", self._publishers), ("subscriber", self._subscribers)):
            for name in names:
                await self._start(role, name, server.url)
        for worker in self._workers.values():
            await self._ready(worker)
        await self._inject_faults(Nemesis(server, self._workers, self._writer, self._ready))
        self._allow(self._settings.events)
        await self._until(self._enough_acknowledged, "the last events were not published")
        await self._until_handled()
        await self._record_dead_letters(server)
        await self._stop_workers()

    async def _start(self, role: str, name: str, url: str) -> None:
        rate = self._settings.rate / len(self._publishers)
        spec = WorkerSpec(
            role, name, 0, str(self._directory), url, self._settings.transport, rate, self._settings.verbose
        )
        self._workers[name] = Worker(spec, self._on_exit)
        await self._workers[name].start()

    async def _inject_faults(self, nemesis: Nemesis) -> None:
        shares, fsync = self._settings.transport == "group", self._settings.fsync
        plan = make_plan(
            self._settings.seed,
            self._settings.faults,
            publishers=self._publishers,
            subscribers=self._subscribers,
            # A loss must be detectable: a group is known to the server and to its members. If a fault takes both away,
            # no process can tell that there was a group.
            also=["destroy group"] if shares and fsync != "always" else [],
            without=["kill all"] if shares and fsync == "no" else [],
        )
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                if under_way and not fault.overlaps:
                    await asyncio.wait(under_way)
                await self._until_due(fault)
                task = tasks.create_task(nemesis.inject(fault))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

    async def _until_due(self, fault: Fault) -> None:
        """Wait until enough events are acknowledged. The quota of the publishers is ahead by one fault's share."""
        self._allow(math.ceil((fault.number + 2) * self._settings.events_per_fault))
        due = (fault.number + fault.at) * self._settings.events_per_fault
        await self._until(lambda: len(self.summary.acknowledged) >= due, f"fault {fault.number} was never due")

    def _allow(self, events: int) -> None:
        """Allow `events` events to be published in total, an equal share by each publisher."""
        self._allowed = max(self._allowed, min(events, self._settings.events))
        for name in self._publishers:
            self._allow_one(name)

    def _allow_one(self, name: str) -> None:
        worker = self._workers[name]
        before = sum(
            count for (who, run), count in self.summary.accepted.items() if who == name and run < worker.incarnation
        )
        worker.send(str(max(0, math.ceil(self._allowed / len(self._publishers)) - before)))

    def _enough_acknowledged(self) -> bool:
        return len(self.summary.acknowledged) >= self._settings.events

    async def _until_handled(self) -> None:
        """Wait until no event is missing, or no event has been handled for a while."""
        clock = asyncio.get_running_loop().time
        handled, moved = -1, clock()
        while any(self.summary.missing().values()) and clock() - moved < _LOST_AFTER:
            if (total := sum(map(len, self.summary.handled.values()))) != handled:
                handled, moved = total, clock()
            await asyncio.sleep(10 * _POLL_INTERVAL)

    async def _record_dead_letters(self, server: Server) -> None:
        """Record every dead letter."""
        async with DeadLetters(RedisStream(server.url, key=KEY)) as dead:
            after: str | None = None
            while letters := await dead.list(after=after, limit=1_000):
                for letter in letters:
                    self._writer.append("dead_lettered", id=decode(letter.payload).event.id)
                after = letters[-1].id

    async def _stop_workers(self) -> None:
        """Shut all workers down gracefully."""
        stopping = {name: asyncio.create_task(worker.stop(STOP_WITHIN)) for name, worker in self._workers.items()}
        await asyncio.wait(stopping.values())
        for name, task in stopping.items():
            if not task.result():
                self._writer.append("broken", problem=f"{name} did not shut down gracefully at the end")

    async def _ready(self, worker: Worker) -> None:
        ready = worker.name, worker.incarnation
        await self._until(lambda: ready in self.summary.ready, f"{worker.name} did not become ready")
        if worker.name in self._publishers:
            self._allow_one(worker.name)

    async def _until(self, reached: Callable[[], bool], problem: str) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + _STALLED_AFTER
        while not reached():
            if clock() > deadline:
                raise Stalled(f"{problem}, within {_STALLED_AFTER:.0f} s")
            await asyncio.sleep(_POLL_INTERVAL)

    def _on_exit(self, worker: Worker, code: int) -> None:
        """Record that a process exited by itself, and restart it: the run continues."""
        self._writer.append("broken", problem=f"{worker.name} exited by itself, with exit code {code}")
        task = asyncio.create_task(worker.start())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _kill_workers(self) -> None:
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers.values()))

    @asynccontextmanager
    async def _observing(self, server: Server) -> AsyncIterator[None]:
        async def observe() -> None:
            while True:
                self._read_history()
                server.observe()
                await asyncio.sleep(_POLL_INTERVAL)

        task = asyncio.create_task(observe())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error

    def _read_history(self) -> None:
        """Read the new records of all processes."""
        records = self._reader.read_new()
        for record in records:
            self.summary.add(record)
        self.history += records
