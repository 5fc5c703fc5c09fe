"""One run from beginning to end: start everybody, publish under faults, wait for the last event, write the history."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.soak.history import Diary, Reader, Record
from bench.soak.nemesis import LEAVE_WITHIN, Nemesis
from bench.soak.plan import Fault, make_plan
from bench.soak.processes import Server, Worker
from bench.soak.verdict import Ledger
from bench.soak.worker import KEY, Order
from jwt_events import DeadLetters, RedisStream
from jwt_events.envelope import decode

_BEAT = 0.02
_STALLED_AFTER = 60.0
"""Seconds without any progress that end the run: no fault lasts that long."""

_PATIENCE = 10.0
"""Seconds without progress after which what was not handled counts as lost: longer than any takeover needs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to be like.

    Attributes:
        events: how many must be acknowledged.
        faults: how many to carry out meanwhile.
        seed: of the plan.
        transport: ``stream`` (everybody sees everything) or ``group`` (they share).
        fsync: what the server keeps when it is killed: ``always`` all, ``everysec`` all but a second, ``no`` nothing.
        publishers: how many processes publish.
        subscribers: how many handle.
        rate: how many events per second all publishers send together, at most.
        verbose: whether the processes log what the library says.
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
    def longest(self) -> float:
        """Seconds after which the run is given up, whatever happens."""
        return 120.0 + 8.0 * self.faults + 4.0 * self.events / self.rate

    @property
    def share(self) -> float:
        """How many events there are for each fault."""
        return self.events / (self.faults + 1)


class Stalled(Exception):
    """The run did not get on."""


class Conductor:
    """Carries out one run.

    Args:
        settings: what it is to be like.
        directory: an empty directory for everything that it leaves behind.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._publishers = [f"publisher-{number + 1}" for number in range(settings.publishers)]
        self._subscribers = [f"subscriber-{number + 1}" for number in range(settings.subscribers)]
        self._workers: dict[str, Worker] = {}
        self._reader = Reader(directory)
        self._diary = Diary(directory, "nemesis", 0)
        self._restarts: set[asyncio.Task[None]] = set()
        self._allowed = 0
        self.history: list[Record] = []
        self.books = Ledger()

    async def run(self) -> None:
        """Do it all. Cancelled, it leaves nothing running."""
        facts = asdict(self._settings) | {"subscribers": self._subscribers}
        self._diary.note("run", **facts)
        async with AsyncExitStack() as stack:
            server = Server(self._directory, self._settings.fsync)
            await server.start()
            stack.push_async_callback(server.aclose)
            await stack.enter_async_context(self._observing(server))
            stack.push_async_callback(self._kill_workers)
            try:
                async with asyncio.timeout(self._settings.longest):
                    await self._play(server)
            except (Stalled, TimeoutError) as error:
                self._diary.note("broken", problem=str(error) or f"no end after {self._settings.longest:.0f} s")
            self._diary.note("end")
        self._look()

    async def _play(self, server: Server) -> None:
        for role, names in (("publisher", self._publishers), ("subscriber", self._subscribers)):
            for name in names:
                await self._start(role, name, server.url)
        for worker in self._workers.values():
            await self._ready(worker)
        await self._break_things(Nemesis(server, self._workers, self._diary, self._ready))
        self._allow(self._settings.events)
        await self._until(self._enough_acknowledged, "the last events were not published")
        await self._until_handled()
        await self._exhume(server)
        await self._dismiss()

    async def _start(self, role: str, name: str, url: str) -> None:
        rate = self._settings.rate / len(self._publishers)
        order = Order(role, name, 0, str(self._directory), url, self._settings.transport, rate, self._settings.verbose)
        self._workers[name] = Worker(order, self._died)
        await self._workers[name].start()

    async def _break_things(self, nemesis: Nemesis) -> None:
        shares, fsync = self._settings.transport == "group", self._settings.fsync
        plan = make_plan(
            self._settings.seed,
            self._settings.faults,
            publishers=self._publishers,
            subscribers=self._subscribers,
            # What each fault may lose must be something that somebody can know of: a group is remembered by the server
            # and by those who are in it. If neither is left, nobody can tell that there was one.
            also=["destroy group"] if shares and fsync != "always" else [],
            without=["kill everybody"] if shares and fsync == "no" else [],
        )
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                if under_way and not fault.overlaps:
                    await asyncio.wait(under_way)
                await self._until_due(fault)
                task = tasks.create_task(nemesis.inflict(fault))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

    async def _until_due(self, fault: Fault) -> None:
        """Wait until so many events are acknowledged. What may be published runs ahead by one fault's share."""
        self._allow(math.ceil((fault.number + 2) * self._settings.share))
        due = (fault.number + fault.at) * self._settings.share
        await self._until(lambda: len(self.books.acknowledged) >= due, f"fault {fault.number} was never due")

    def _allow(self, events: int) -> None:
        """Let so many events be published in all, a share by each publisher."""
        self._allowed = max(self._allowed, min(events, self._settings.events))
        for name in self._publishers:
            self._allow_one(name)

    def _allow_one(self, name: str) -> None:
        worker = self._workers[name]
        before = sum(count for (who, run), count in self.books.accepted.items() if who == name and run < worker.run)
        worker.tell(str(max(0, math.ceil(self._allowed / len(self._publishers)) - before)))

    def _enough_acknowledged(self) -> bool:
        return len(self.books.acknowledged) >= self._settings.events

    async def _until_handled(self) -> None:
        """Wait until nothing is missing, or nothing has been handled for a while."""
        clock = asyncio.get_running_loop().time
        handled, moved = -1, clock()
        while any(self.books.missing().values()) and clock() - moved < _PATIENCE:
            if (total := sum(map(len, self.books.handled.values()))) != handled:
                handled, moved = total, clock()
            await asyncio.sleep(10 * _BEAT)

    async def _exhume(self, server: Server) -> None:
        """Note what was given up."""
        async with DeadLetters(RedisStream(server.url, key=KEY)) as dead:
            after: str | None = None
            while letters := await dead.list(after=after, limit=1_000):
                for letter in letters:
                    self._diary.note("buried", id=decode(letter.payload).event.id)
                after = letters[-1].id

    async def _dismiss(self) -> None:
        """Send everybody home, in good order."""
        leaving = {name: asyncio.create_task(worker.leave(LEAVE_WITHIN)) for name, worker in self._workers.items()}
        await asyncio.wait(leaving.values())
        for name, task in leaving.items():
            if not task.result():
                self._diary.note("broken", problem=f"{name} did not leave in good order in the end")

    async def _ready(self, worker: Worker) -> None:
        life = worker.name, worker.run
        await self._until(lambda: life in self.books.ready, f"{worker.name} did not get ready")
        if worker.name in self._publishers:
            self._allow_one(worker.name)

    async def _until(self, reached: Callable[[], bool], problem: str) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + _STALLED_AFTER
        while not reached():
            if clock() > deadline:
                raise Stalled(f"{problem}, in {_STALLED_AFTER:.0f} s")
            await asyncio.sleep(_BEAT)

    def _died(self, worker: Worker, code: int) -> None:
        """Take note that a process ended by itself, and start it again: the others go on."""
        self._diary.note("broken", problem=f"{worker.name} ended by itself, with exit code {code}")
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
                self._look()
                server.observe()
                await asyncio.sleep(_BEAT)

        task = asyncio.create_task(observe())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error

    def _look(self) -> None:
        """Read what is new in the diaries."""
        news = self._reader.news()
        for record in news:
            self.books.take(record)
        self.history += news
