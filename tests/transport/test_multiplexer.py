"""Commands of many tasks over one connection: each gets its own answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import pytest

from jwt_events import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.multiplexer import PAGE, Multiplexer
from jwt_events.transport._redis.replies import array as read_array
from jwt_events.transport._redis.replies import number
from tests.faults.cancelling import Cut, Moment
from tests.support.fake_server import OK, SILENCE, FakeServer, array, text
from tests.support.handling import running, soon
from tests.support.waiting import scaled, wait_until


def _echo(words: list[bytes]) -> bytes:
    return text(words[1])


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _cause_of(task: asyncio.Task[object]) -> BaseException | None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await soon(task)
    return caught.value.__cause__


class TestAnswers:
    """Whose answer is whose."""

    async def test_each_its_own(self, url: str) -> None:
        """Of hundreds that ask a few things each, and of whom some give up at any time, each gets its own answers."""
        chance = random.Random(1)
        questions = [[("ECHO", f"{number}:{part}") for part in range(1 + number % 5)] for number in range(500)]
        async with Multiplexer(Connector(url)) as pipeline:
            tasks = []
            for question in questions:
                tasks.append(asyncio.create_task(pipeline.run(question, within=scaled(20))))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                if chance.random() < 0.2:
                    chance.choice(tasks[-20:]).cancel()
            await soon(asyncio.wait(tasks), within=30)
        answered = 0
        for question, task in zip(questions, tasks, strict=True):
            # A connection at which nobody waited any more was torn down, perhaps under somebody who had just come.
            if not task.cancelled() and not any(isinstance(answer, ConnectionFailed) for answer in task.result()):
                assert task.result() == [words[1].encode() for words in question]
                answered += 1
        assert answered > 300
        assert sum(task.cancelled() for task in tasks) > 20

    async def test_behind_one_that_was_given_up(self) -> None:
        """While an answer that nobody waits for is outstanding nothing more is sent; those behind it get theirs."""
        async with FakeServer(lambda _: SILENCE) as server, Multiplexer(Connector(server.url)) as pipeline:
            async with (
                running(pipeline.run([("ECHO", "first")], within=scaled(20))) as first,
                running(pipeline.run([("ECHO", "second")], within=scaled(20))) as second,
            ):
                await wait_until(lambda: len(server.commands) == 2)
                assert isinstance(await _cause_of(first), TransportError)
                async with running(pipeline.run([("ECHO", "third")], within=scaled(20))) as third:
                    server.say(text(b"first")[:4])
                    await asyncio.sleep(0)
                    assert len(server.commands) == 2
                    server.say(text(b"first")[4:] + text(b"second"))
                    await wait_until(lambda: len(server.commands) == 3)
                    server.say(text(b"third"))
                    assert await soon(third) == [b"third"]
                assert await soon(second) == [b"second"]
            assert server.connections == 1

    async def test_of_another(self) -> None:
        """Where an answer was lost, the next one is taken for it: as it cannot be read, all begins anew."""
        answers = iter([SILENCE, array(), b":1\r\n"])
        async with FakeServer(lambda _: next(answers)) as server, Multiplexer(Connector(server.url)) as pipeline:
            async with (
                running(pipeline.run([("XACK", "k")], within=scaled(20), reading=number)) as acknowledging,
                running(pipeline.run([("XCLAIM", "k")], within=scaled(20), reading=read_array)) as renewing,
            ):
                for task in (acknowledging, renewing):
                    (error,) = await soon(task)
                    assert isinstance(error, ConnectionFailed)
                    assert error.maybe_done
                    assert str(error).endswith("failed: the answer makes no sense")
            assert await soon(pipeline.run([("XACK", "k")], within=scaled(20), reading=number)) == [1]
            assert server.connections == 2

    async def test_of_another_in_one_packet(self) -> None:
        """Where answers are out of step none is believed, not even of those that could be read."""

        def answer(words: list[bytes]) -> bytes:
            return array() + b":1\r\n:2\r\n" if words[1] == b"third" else SILENCE

        async with (
            FakeServer(answer) as server,
            Multiplexer(Connector(server.url)) as pipeline,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(pipeline.run([("XACK", name)], within=scaled(20), reading=number))
                for name in ("first", "second", "third")
            ]
            for task in tasks:
                (error,) = await soon(task)
                assert isinstance(error, ConnectionFailed)
                assert error.maybe_done

    async def test_one_too_many(self) -> None:
        """An answer more than there were questions: it is not known which of them is nobody's, so none is believed."""
        async with FakeServer(lambda _: b":1\r\n:2\r\n") as server, Multiplexer(Connector(server.url)) as pipeline:
            (error,) = await soon(pipeline.run([("XACK", "k")], within=scaled(20), reading=number))
            assert isinstance(error, ConnectionFailed)
            assert error.maybe_done

    async def test_given_up_just_as_the_answer_comes(self) -> None:
        """Who gives up when the answer is there already breaks nothing."""
        async with FakeServer(_echo) as server, Multiplexer(Connector(server.url)) as pipeline:
            await pipeline.run([("ECHO", "t")], within=scaled(10))
            asking = asyncio.ensure_future(
                _awaited(Cut(pipeline.run([("ECHO", "t")], within=scaled(10)), 0, Moment.JUST_AFTER))
            )
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert await pipeline.run([("ECHO", "t")], within=scaled(10)) == [b"t"]
            assert server.connections == 1


class TestPages:
    """More commands than may be outstanding."""

    async def test_in_order(self, url: str, key: str) -> None:
        """All of them are run, in order."""
        async with Multiplexer(Connector(url)) as pipeline:
            answers = await pipeline.run([("INCR", key)] * (2 * PAGE + 1), within=scaled(20))
            assert answers == list(range(1, 2 * PAGE + 2))
            await pipeline.run([("DEL", key)], within=scaled(20))

    async def test_cancelled_between_two(self) -> None:
        """If the first page was answered and the next is not sent yet, something was done, and the cause says so."""
        async with FakeServer(lambda words: SILENCE) as server, Multiplexer(Connector(server.url)) as pipeline:
            pages = pipeline.run([("SET", "a", n) for n in range(PAGE + 1)], within=scaled(20))
            others = pipeline.run([("SET", "b", n) for n in range(PAGE)], within=scaled(20))
            async with running(pages) as asking, running(others):
                await wait_until(lambda: len(server.commands) == PAGE)
                server.say(OK * PAGE)
                await wait_until(lambda: len(server.commands) == 2 * PAGE)
                cause = await _cause_of(asking)
        assert isinstance(cause, TransportError)
        assert cause.maybe_done
        assert [b"SET", b"a", str(PAGE).encode()] not in server.commands


class TestEnds:
    """No time left, and nobody there any more."""

    @pytest.mark.parametrize("within", [0.0, -1.0])
    async def test_no_time_left(self, within: float) -> None:
        """What has no time left is not sent, so that it is not in doubt."""
        async with FakeServer(_echo) as server, Multiplexer(Connector(server.url)) as pipeline:
            await pipeline.run([("ECHO", "t")], within=scaled(10))
            for number in (1, PAGE + 1):
                answers = await pipeline.run([("ECHO", "u")] * number, within=within)
                assert len(answers) == number
                assert not any(answer.maybe_done for answer in answers)
        assert len(server.commands) == 1

    async def test_closed(self) -> None:
        """Whoever waits when it is closed is told, and whoever comes afterwards: what was sent, and what was not."""
        async with FakeServer(lambda _: SILENCE) as server:
            async with Multiplexer(Connector(server.url)) as pipeline:
                sent = asyncio.create_task(pipeline.run([("ECHO", "sent")], within=scaled(60)))
                await wait_until(lambda: len(server.commands) == 1)
                late = asyncio.create_task(pipeline.run([("ECHO", "late")] * PAGE, within=scaled(60)))
                await asyncio.sleep(0)
            for task, maybe_done in ((sent, True), (late, False)):
                error = (await soon(task))[-1]
                assert isinstance(error, ConnectionFailed)
                assert error.maybe_done == maybe_done
            (error,) = await soon(pipeline.run([("ECHO", "after")], within=0.05))
            assert isinstance(error, ConnectionFailed)
            assert not error.maybe_done
        assert len(server.commands) == 1
