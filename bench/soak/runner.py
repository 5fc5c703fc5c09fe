"""One run from beginning to end: start the processes, publish under faults, wait for the last event."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.soak.history import HistoryReader, HistoryWriter, Record
from bench.soak.machine import Machine
from bench.soak.nemesis import STOP_WITHIN, Nemesis
from bench.soak.plan import Fault, make_plan
from bench.soak.processes import Worker
from bench.soak.service import Service
from bench.soak.spec import KEY, WorkerSpec
from bench.soak.summary import HistorySummary
from bench.soak.topology import Topology
from jwt_events import DeadLetters, RedisStream
from jwt_events.envelope import decode

_POLL_INTERVAL = 0.02
_STALLED_AFTER = 60.0
"""Seconds without progress after which the run is aborted: no fault lasts that long."""

_STARTED_WITHIN = 240.0
"""Seconds within which a list must have been started anew at the end: it reads everything, twice if it had begun."""

_LOST_AFTER = 10.0
"""Seconds without progress after which unhandled events count as lost: longer than any claim needs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        events: how many events must be acknowledged.
        faults: how many faults to inject meanwhile.
        seed: of the plan.
        topology: ``single`` (one server), ``sentinel`` (a primary, two replicas, three Sentinels) or ``cluster`` (six
            nodes).
        transport: ``stream`` (every subscriber receives every event) or ``group`` (they share the events).
        fsync: what the server keeps when it is killed: ``always`` all, ``everysec`` all but a second, ``no`` nothing.
        publishers: the number of processes that publish.
        subscribers: the number of processes that handle.
        lists: the number of processes with a list that is asked all the time; with any, one more starts lists anew.
        replicas: how many replicas must have an event before it is accepted.
        retention: seconds for which publishers keep events in the stream; ``None`` for the default.
        rate: events per second that all publishers send together, at most.
        only: the kinds of faults to inject; empty for those of the topology.
        verbose: whether the processes log what the library does.
    """

    events: int
    faults: int
    seed: int = 1
    topology: str = "single"
    transport: str = "stream"
    fsync: str = "always"
    publishers: int = 2
    subscribers: int = 3
    lists: int = 0
    replicas: int = 0
    retention: float | None = None
    rate: float = 2_500.0
    only: Sequence[str] = ()
    verbose: bool = False

    @property
    def max_seconds(self) -> float:
        """Seconds after which the run is aborted."""
        return 120.0 + (30.0 if self.topology != "single" else 8.0) * self.faults + 4.0 * self.events / self.rate

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
        self._lists = [f"list-{number + 1}" for number in range(settings.lists)]
        self._workers: dict[str, Worker] = {}
        self._reader = HistoryReader(directory)
        self._writer = HistoryWriter(directory, "nemesis", 0)
        self._restarts: set[asyncio.Task[None]] = set()
        self._allowed = 0
        self.history: list[Record] = []
        self.summary = HistorySummary()

    async def run(self) -> None:
        """Carry out the run. When cancelled, it ends all its processes."""
        facts = asdict(self._settings) | {"subscribers": self._subscribers, "lists": self._lists}
        self._writer.append("run", **facts)
        async with AsyncExitStack() as stack:
            topology = self._topology()
            stack.push_async_callback(topology.aclose)
            await topology.start()
            await stack.enter_async_context(self._observing(topology))
            stack.push_async_callback(self._kill_workers)
            try:
                async with asyncio.timeout(self._settings.max_seconds):
                    await self._execute(topology)
            except* (Stalled, TimeoutError, AssertionError) as errors:
                for error in errors.exceptions:
                    problem = str(error) or f"no end after {self._settings.max_seconds:.0f} s"
                    self._writer.append("broken", problem=problem)
            self._writer.append("end")
        self._read_history()

    def _topology(self) -> Topology:
        settings = self._settings
        if settings.topology == "single":
            return Machine(self._directory, settings.fsync)
        if settings.topology == "cluster":
            from bench.soak.shards import Shards  # noqa: PLC0415 - with what tests are made of, which others do not need

            return Shards(self._directory, settings.fsync)
        # Only with replicas can a list prove that a name leads it to the primary.
        return Service(self._directory, settings.fsync, has_name=settings.replicas > 0, seed=settings.seed)

    async def _execute(self, topology: Topology) -> None:
        roles = {"publisher": self._publishers, "subscriber": self._subscribers, "list": self._lists}
        roles["starter"] = ["starter-1"] if self._lists else []
        for role, names in roles.items():
            for name in names:
                await self._start(role, name, topology.url_of(name))
        for worker in self._workers.values():
            await self._ready(worker)
        await self._inject_faults(Nemesis(topology, self._workers, self._writer, self._ready))
        self._allow(self._settings.events)
        await self._until(self._enough_acknowledged, "the last events were not published")
        await self._until_handled()
        await self._until_started()
        await self._record_dead_letters(topology)
        await self._stop_workers()

    async def _start(self, role: str, name: str, url: str) -> None:
        settings = self._settings
        spec = WorkerSpec(
            role,
            name,
            0,
            str(self._directory),
            url,
            settings.transport,
            settings.rate / len(self._publishers),
            settings.replicas,
            settings.retention,
            settings.verbose,
        )
        self._workers[name] = Worker(spec, self._on_exit)
        await self._workers[name].start()

    async def _inject_faults(self, nemesis: Nemesis) -> None:
        shares, fsync = self._settings.transport == "group", self._settings.fsync
        plan = make_plan(
            self._settings.seed,
            self._settings.faults,
            topology=self._settings.topology,
            publishers=self._publishers,
            subscribers=self._subscribers,
            lists=self._lists,
            only=self._settings.only,
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

    async def _until_started(self) -> None:
        """Wait until a list was started, and another one asked, after the last event was acknowledged."""
        if self._lists:
            answers = self.summary.answers
            everything = len(self.summary.acknowledged)
            await self._until(lambda: answers.known >= everything, "the last list was not started", _STARTED_WITHIN)

    async def _record_dead_letters(self, topology: Topology) -> None:
        """Record every dead letter."""
        async with DeadLetters(RedisStream(topology.url, key=KEY)) as dead:
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

    async def _until(self, reached: Callable[[], bool], problem: str, within: float = _STALLED_AFTER) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + within
        while not reached():
            if clock() > deadline:
                raise Stalled(f"{problem}, within {within:.0f} s")
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
    async def _observing(self, topology: Topology) -> AsyncIterator[None]:
        async def observe() -> None:
            while True:
                self._read_history()
                topology.observe()
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
