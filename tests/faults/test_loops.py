"""Use from another event loop or thread: refused by a typed error, before anything is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from jwt_events import (
    Closed,
    DeadLetters,
    MemoryTransport,
    Publisher,
    RedisStream,
    RevocationList,
    Subscriber,
    WrongLoop,
)
from tests.support.examples import revoked
from tests.support.handling import Recorder, publish, soon
from tests.support.waiting import scaled, wait_until

_T = TypeVar("_T")


def _elsewhere(function: Callable[[], Awaitable[_T]]) -> Awaitable[_T]:
    """Await something in an event loop of its own, in another thread."""

    async def run() -> _T:
        return await function()

    return asyncio.to_thread(lambda: asyncio.run(run()))


@contextmanager
def _loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Make an event loop in this thread, which is not running otherwise; yield what runs something in it."""
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class TestPublisher:
    """A publisher belongs to the loop that it first publishes in."""

    async def test_another_thread(self, url: str, key: str, client: Redis) -> None:
        """Another loop cannot publish, open or close it; nothing is sent; and it goes on in its own."""
        async with Publisher(RedisStream(url, key)) as publisher:
            await publisher.publish(revoked(1))
            for use in (lambda: publisher.publish(revoked(2)), lambda: publisher.publish_many([revoked(2)])):
                with pytest.raises(WrongLoop, match=r"another thread: .* by asyncio\.run_coroutine_threadsafe"):
                    await _elsewhere(use)
            for manage in (publisher.__aenter__, publisher.aclose):
                with pytest.raises(WrongLoop):
                    await _elsewhere(manage)
            await publisher.publish(revoked(3))
            assert await client.xlen(key) == 2
        with pytest.raises(Closed):
            await _elsewhere(lambda: publisher.publish(revoked(2)))

    def test_a_loop_that_has_ended(self) -> None:
        """One asyncio.run() for each call gets an error that says what to do, each time."""
        publisher = Publisher(MemoryTransport())
        asyncio.run(publisher.publish(revoked(1)))
        for _ in range(2):
            with pytest.raises(WrongLoop, match=r"has ended: open and close it inside of one asyncio\.run"):
                asyncio.run(publisher.publish(revoked(2)))
        publisher._resources = None  # what it was, it cannot close any more

    def test_two_loops_of_one_thread(self) -> None:
        """Loops that take turns are two loops, too."""
        publisher = Publisher(MemoryTransport())
        with _loop() as first, _loop() as second:
            first(publisher.publish(revoked(1)))
            with pytest.raises(WrongLoop, match="use it there, or make one for each event loop"):
                second(publisher.publish(revoked(2)))
            first(publisher.publish(revoked(3)))
            first(publisher.aclose())

    async def test_by_its_own_loop(self) -> None:
        """Another thread lets the loop do the call, as the error says."""
        async with Publisher(MemoryTransport()) as publisher:
            loop = asyncio.get_running_loop()

            def call() -> object:
                return asyncio.run_coroutine_threadsafe(publisher.publish(revoked(1)), loop).result(scaled(10))

            assert await asyncio.to_thread(call)


class TestSubscriber:
    """A subscriber belongs to the loop in which it was entered, until it was left."""

    async def test_another_thread(self) -> None:
        """Another loop or thread can neither end it, nor take its events, nor register handlers."""
        subscriber = Subscriber(MemoryTransport())
        subscriber.on()(Recorder())
        async with subscriber:
            for use in (subscriber.stop, subscriber.drain, subscriber.run, subscriber.__aenter__):
                with pytest.raises(WrongLoop):
                    await _elsewhere(use)
            for register in (subscriber.on(), subscriber.on_gap):
                with pytest.raises(WrongLoop):
                    await asyncio.to_thread(register, print)
            assert subscriber.is_live
        await asyncio.to_thread(subscriber.on(), print)

    def test_one_loop_after_another(self) -> None:
        """It can be used again in another loop, handlers and events() included."""
        transport = MemoryTransport(start="all")
        subscriber = Subscriber(transport)

        async def pull() -> None:
            async with subscriber:
                waiting = asyncio.ensure_future(anext(events := subscriber.events()))
                await publish(transport, revoked(1))
                assert (await soon(waiting)).subject == revoked(1).subject
                await events.aclose()

        for _ in range(2):
            asyncio.run(pull())

    def test_a_loop_that_has_ended(self) -> None:
        """One that was never left is not "running already"."""
        subscriber = Subscriber(MemoryTransport())
        with _loop() as run:
            run(subscriber.__aenter__())
            subscriber._subscription.reader.cancel()  # type: ignore[union-attr]  # just entered
            run(asyncio.sleep(0))
        for use in (subscriber.__aenter__, subscriber.stop):
            with pytest.raises(WrongLoop, match="has ended"):
                asyncio.run(use())


class TestRevocationList:
    """A list belongs to the loop in which it was opened; it can be checked from any thread."""

    async def test_another_thread(self) -> None:
        """Checks work everywhere; watches, which another loop could not be woken for, are refused."""
        revocations = RevocationList(MemoryTransport())

        async def watch() -> None:
            async with revocations.watch({"jti": "t"}):
                pass

        async with revocations:
            assert await asyncio.to_thread(revocations.check, {"jti": "t"})
            for use in (watch, revocations.__aenter__, revocations.aclose):
                with pytest.raises(WrongLoop):
                    await _elsewhere(use)
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(revocations.apply, revoked(1))
            await watch()
            assert revocations.is_fresh

    async def test_closed_by_its_callbacks(self) -> None:
        """A callback may close the list, itself or in a task: it is not cancelled by that."""
        transport, closed = MemoryTransport(), list[str]()
        for name in ("itself", "task"):
            revocations = RevocationList(transport)

            async def close(_: object, revocations: RevocationList = revocations, name: str = name) -> None:
                await (revocations.aclose() if name == "itself" else asyncio.wait_for(revocations.aclose(), scaled(10)))
                closed.append(name)

            async with revocations:
                revocations.on()(close)
                await publish(transport, revoked(1))
                await wait_until(lambda name=name: name in closed)
        assert closed == ["itself", "task"]


async def test_memory_transport() -> None:
    """Two loops that are open cannot share a transport in memory: one could not wake the other."""
    transport = MemoryTransport()
    async with Subscriber(transport):
        with pytest.raises(WrongLoop):
            await _elsewhere(lambda: publish(transport, revoked(1)))
    await _elsewhere(lambda: publish(transport, revoked(1)))


async def test_dead_letters(url: str, key: str) -> None:
    """Access to dead letters belongs to the loop in which it was opened."""
    async with DeadLetters(RedisStream(url, key)) as dead:
        for use in (dead.count, dead.__aenter__, lambda: dead.__aexit__(None, None, None)):
            with pytest.raises(WrongLoop):
                await _elsewhere(use)
        assert await dead.count() == 0


def test_opened_by_two_threads_at_once() -> None:
    """Of two threads that open a publisher at the same moment, one is refused, and the other is served."""
    publisher, together = Publisher(MemoryTransport()), threading.Barrier(2)
    refused = list[bool]()

    async def use() -> None:
        together.wait(scaled(10))
        try:
            await publisher.publish(revoked(1))
        except WrongLoop:
            refused.append(True)
        else:
            refused.append(False)
        together.wait(scaled(10))
        with suppress(WrongLoop):
            await publisher.aclose()

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(20))
    assert sorted(refused) == [False, True]
