"""Nothing dies quietly: when listening fails for good, whoever relies on it is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import pytest

from jwt_events import RedisStream, ServerRefused, Subscriber, TransportError
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, running, soon
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.servers import Server
from tests.support.waiting import wait_until


@pytest.fixture
def transport() -> ScriptedTransport:
    """Where the events of a test come from."""
    return ScriptedTransport()


@pytest.fixture
def subscriber(transport: ScriptedTransport) -> Subscriber:
    """A subscriber with a handler."""
    subscriber = Subscriber(transport)
    subscriber.on()(Recorder())
    return subscriber


async def _serve(subscriber: Subscriber) -> None:
    """Do what programs do: enter, and wait for something that takes for ever."""
    async with subscriber:
        await soon(asyncio.Event().wait())


class TestAsyncWith:
    """In the background of a program."""

    async def test_cancelled_by_others_too(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """A cancellation from elsewhere that arrives where the block ends is not swallowed, and all is closed."""

        async def serve() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with subscriber:
                transport.fail()
                with suppress(asyncio.CancelledError):
                    await soon(asyncio.Event().wait())
                task.cancel()

        serving = asyncio.create_task(serve())
        await asyncio.wait([serving])
        assert serving.cancelled()
        assert transport.open == 0

    async def test_interrupts_the_body(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """The body is cancelled where it waits, and the error is raised where the block ends."""
        reached: list[str] = []

        async def serve() -> None:
            async with subscriber:
                transport.fail()
                try:
                    await soon(asyncio.Event().wait())
                except asyncio.CancelledError:
                    reached.append("cancelled")
                    raise

        with recorded() as records, pytest.raises(TransportError, match="the script says so"):
            await serve()
        assert reached == ["cancelled"]
        assert transport.open == 0
        assert records.of("listening failed", "ERROR") == [{"error": "the script says so"}]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_any_error(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Also an error that no transport should raise ends the block, as itself."""
        transport.fail(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await _serve(subscriber)

    async def test_handlers_finish(self, transport: ScriptedTransport) -> None:
        """Handlers that are running when listening fails may finish."""
        subscriber, gate = Subscriber(transport), Gate()
        subscriber.on()(gate)
        transport.deliver(revoked())
        transport.fail()
        async with running(_serve(subscriber)) as task:
            await wait_until(lambda: transport.failed and gate.running == 1)
            gate.open()
            with pytest.raises(TransportError):
                await soon(task)
        assert len(gate.finished) == 1

    async def test_the_body_survives_the_cancellation(
        self, transport: ScriptedTransport, subscriber: Subscriber
    ) -> None:
        """A body that swallows the cancellation gets the error all the same, where the block ends."""

        async def swallow() -> None:
            async with subscriber:
                with suppress(asyncio.CancelledError):
                    await soon(asyncio.Event().wait())
                await asyncio.sleep(0)

        transport.fail()
        with pytest.raises(TransportError):
            await swallow()

    async def test_the_bodys_own_exception_wins(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """An exception that the body raises is not replaced; the failure is in the log."""

        async def serve() -> None:
            async with subscriber:
                transport.fail()
                try:
                    await soon(asyncio.Event().wait())
                finally:
                    raise KeyError("of the body")

        with recorded() as records, pytest.raises(KeyError, match="of the body"):
            await serve()
        assert len(records.of("listening failed")) == 1
        await asyncio.sleep(0)  # no cancellation is left to arrive later

    @pytest.mark.parametrize("order", ["outer first", "failure first"])
    async def test_outer_cancellation(self, transport: ScriptedTransport, subscriber: Subscriber, order: str) -> None:
        """A cancellation from outside at the same time is not swallowed."""
        async with running(_serve(subscriber)) as task:
            await wait_until(lambda: transport.opened)
            if order == "failure first":
                (reader,) = (task for task in asyncio.all_tasks() if task.get_name() == "jwt_events reader")
                reader.add_done_callback(lambda _: task.cancel())
                transport.fail()
            else:
                transport.fail()
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert transport.open == 0

    async def test_timeout_around_it(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """A timeout around the block is still a TimeoutError, and a failure inside a timeout is still the failure."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await _serve(subscriber)
        transport.fail()
        with pytest.raises(TransportError):
            async with asyncio.timeout(3_600):
                await _serve(subscriber)

    async def test_in_a_task_group(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """In a task group it fails the group, like any error."""

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_serve(subscriber))
                tasks.create_task(soon(asyncio.Event().wait()))

        transport.fail()
        with pytest.raises(ExceptionGroup) as caught:
            await group()
        assert caught.group_contains(TransportError)

    async def test_while_leaving(self, transport: ScriptedTransport) -> None:
        """Once the block is being left nothing is read any more, so nothing can fail."""
        subscriber, gate = Subscriber(transport, concurrency=1), Gate()
        subscriber.on()(gate)
        async with subscriber:
            transport.deliver(revoked(1), revoked(2))
            transport.fail()
            await wait_until(lambda: gate.running == 1)
            asyncio.get_running_loop().call_later(0.01, gate.open)
        assert (len(gate.finished), transport.failed) == (2, 0)

    async def test_left_by_another_task(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """If the task that entered has ended by then, the error is raised in the one that leaves."""
        await asyncio.create_task(subscriber.__aenter__())
        with recorded() as records:
            transport.fail()
            await wait_until(lambda: records.of("listening failed"))
        with pytest.raises(TransportError):
            await subscriber.__aexit__(None, None, None)
        assert transport.open == 0

    async def test_can_be_entered_again(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """A failure belongs to one life."""
        transport.fail()
        with pytest.raises(TransportError):
            await _serve(subscriber)
        async with subscriber:
            transport.deliver(revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)


class TestRun:
    """As a program of its own."""

    async def test_raises(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """`run` ends with the error."""
        error = transport.fail()
        with pytest.raises(TransportError) as caught:
            await soon(subscriber.run())
        assert caught.value is error
        assert transport.open == 0

    async def test_on_redis(self, server: Server, key: str) -> None:
        """On a server: a key that turned into something else is not worth another try."""
        subscriber = Subscriber(RedisStream(server.url, key, block=0.05))
        subscriber.on()(Recorder())
        async with running(subscriber.run()) as task:
            await wait_until(lambda: "running" in repr(subscriber))
            server.inspector.delete(key)
            server.inspector.rpush(key, "not a stream")
            with pytest.raises(ServerRefused, match="WRONGTYPE"):
                await soon(task)


class TestEvents:
    """One event at a time."""

    @pytest.mark.parametrize("inside", [False, True])
    async def test_raises_after_what_was_read(self, transport: ScriptedTransport, inside: bool) -> None:
        """Events that were read before come first, then the error."""
        subscriber, got = Subscriber(transport), list[str | None]()
        transport.deliver(revoked(1), revoked(2))
        transport.fail()

        async def pull() -> None:
            async with aclosing(subscriber.events()) as events:
                async for event in events:
                    got.append(event.subject)
                    await asyncio.sleep(0)

        async def pull_inside() -> None:
            async with subscriber:
                await pull()

        with pytest.raises(TransportError):
            await soon(pull_inside() if inside else pull())
        assert got == ["token-1", "token-2"]
        assert transport.open == 0

    async def test_after_the_loop_was_left(self, transport: ScriptedTransport) -> None:
        """Inside `async with`, after the loop was left, a failure interrupts the body again."""
        subscriber = Subscriber(transport)

        async def take_one_and_serve() -> None:
            async with subscriber:
                async for _ in subscriber.events():
                    break
                transport.fail()
                await soon(asyncio.Event().wait())

        transport.deliver(revoked())
        with pytest.raises(TransportError):
            await take_one_and_serve()

    async def test_while_an_event_is_handled(self, transport: ScriptedTransport) -> None:
        """A failure that nobody was told of because the loop was left interrupts the body, too."""
        subscriber = Subscriber(transport)

        async def take_one_and_serve() -> None:
            async with subscriber:
                async for _ in subscriber.events():
                    transport.fail()
                    await wait_until(lambda: records.of("listening failed"))
                    break
                await soon(asyncio.Event().wait())

        transport.deliver(revoked())
        with recorded() as records, pytest.raises(TransportError):
            await take_one_and_serve()
