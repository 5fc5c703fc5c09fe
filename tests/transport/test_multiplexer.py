"""`Multiplexer`: each task gets the replies to its own commands, whatever happens to the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import pytest

from jwt_events import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.multiplexer import MAX_OUTSTANDING, Multiplexer
from jwt_events.transport._redis.replies import array as read_array
from jwt_events.transport._redis.replies import number
from tests.faults.cancelling import Cut, Moment
from tests.support.fake_server import OK, SILENCE, FakeServer, array, text
from tests.support.handling import running, soon
from tests.support.waiting import scaled, wait_until


def _echo(words: list[bytes]) -> bytes:
    return text(words[1])


async def _await(work: Awaitable[None]) -> None:
    await work


async def _cause_of(task: asyncio.Task[object]) -> BaseException | None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await soon(task)
    return caught.value.__cause__


class TestReplies:
    """Which reply belongs to which caller."""

    async def test_each_its_own(self, url: str) -> None:
        """Each of hundreds of callers gets its own replies, while some of them are cancelled at any time."""
        chance = random.Random(1)
        commands_of = [[("ECHO", f"{number}:{part}") for part in range(1 + number % 5)] for number in range(500)]
        async with Multiplexer(Connector(url)) as multiplexer:
            tasks = []
            for commands in commands_of:
                tasks.append(asyncio.create_task(multiplexer.run(commands, within=scaled(20))))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                if chance.random() < 0.2:
                    chance.choice(tasks[-20:]).cancel()
            await soon(asyncio.wait(tasks), within=30)
        replied = 0
        for commands, task in zip(commands_of, tasks, strict=True):
            # A connection with abandoned requests only is closed, and a request that has just been sent fails with it.
            if not task.cancelled() and not any(isinstance(reply, ConnectionFailed) for reply in task.result()):
                assert task.result() == [words[1].encode() for words in commands]
                replied += 1
        assert replied > 300
        assert sum(task.cancelled() for task in tasks) > 20

    async def test_behind_an_abandoned_request(self) -> None:
        """While the reply to an abandoned request is outstanding nothing more is sent; earlier callers get theirs."""
        async with FakeServer(lambda _: SILENCE) as server, Multiplexer(Connector(server.url)) as multiplexer:
            async with (
                running(multiplexer.run([("ECHO", "first")], within=scaled(20))) as first,
                running(multiplexer.run([("ECHO", "second")], within=scaled(20))) as second,
            ):
                await wait_until(lambda: len(server.commands) == 2)
                assert isinstance(await _cause_of(first), TransportError)
                async with running(multiplexer.run([("ECHO", "third")], within=scaled(20))) as third:
                    server.say(text(b"first")[:4])
                    await asyncio.sleep(0)
                    assert len(server.commands) == 2
                    server.say(text(b"first")[4:] + text(b"second"))
                    await wait_until(lambda: len(server.commands) == 3)
                    server.say(text(b"third"))
                    assert await soon(third) == [b"third"]
                assert await soon(second) == [b"second"]
            assert server.connections == 1

    async def test_lost_reply(self) -> None:
        """After a lost reply, the next one is of the wrong shape: all requests fail, and a new connection is made."""
        replies = iter([SILENCE, array(), b":1\r\n"])
        async with FakeServer(lambda _: next(replies)) as server, Multiplexer(Connector(server.url)) as multiplexer:
            async with (
                running(multiplexer.run([("XACK", "k")], within=scaled(20), parse=number)) as acknowledging,
                running(multiplexer.run([("XCLAIM", "k")], within=scaled(20), parse=read_array)) as renewing,
            ):
                for task in (acknowledging, renewing):
                    (error,) = await soon(task)
                    assert isinstance(error, ConnectionFailed)
                    assert error.maybe_done
                    assert str(error).endswith("failed: the answer makes no sense")
            assert await soon(multiplexer.run([("XACK", "k")], within=scaled(20), parse=number)) == [1]
            assert server.connections == 2

    async def test_out_of_sync_in_one_packet(self) -> None:
        """When replies are out of sync none is trusted, not even those that can be parsed."""

        def reply(words: list[bytes]) -> bytes:
            return array() + b":1\r\n:2\r\n" if words[1] == b"third" else SILENCE

        async with (
            FakeServer(reply) as server,
            Multiplexer(Connector(server.url)) as multiplexer,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(multiplexer.run([("XACK", name)], within=scaled(20), parse=number))
                for name in ("first", "second", "third")
            ]
            for task in tasks:
                (error,) = await soon(task)
                assert isinstance(error, ConnectionFailed)
                assert error.maybe_done

    async def test_one_reply_too_many(self) -> None:
        """With one reply more than there were commands, none is trusted, as the extra one cannot be told apart."""
        async with FakeServer(lambda _: b":1\r\n:2\r\n") as server, Multiplexer(Connector(server.url)) as multiplexer:
            (error,) = await soon(multiplexer.run([("XACK", "k")], within=scaled(20), parse=number))
            assert isinstance(error, ConnectionFailed)
            assert error.maybe_done

    async def test_cancelled_as_the_reply_arrives(self) -> None:
        """A caller that is cancelled when its reply has just arrived breaks nothing."""
        async with FakeServer(_echo) as server, Multiplexer(Connector(server.url)) as multiplexer:
            await multiplexer.run([("ECHO", "t")], within=scaled(10))
            running_task = asyncio.ensure_future(
                _await(Cut(multiplexer.run([("ECHO", "t")], within=scaled(10)), 0, Moment.JUST_AFTER))
            )
            await asyncio.wait([running_task])
            assert running_task.cancelled()
            assert await multiplexer.run([("ECHO", "t")], within=scaled(10)) == [b"t"]
            assert server.connections == 1


class TestBatches:
    """More commands than may be outstanding."""

    async def test_in_order(self, url: str, key: str) -> None:
        """All commands are run, in order."""
        async with Multiplexer(Connector(url)) as multiplexer:
            replies = await multiplexer.run([("INCR", key)] * (2 * MAX_OUTSTANDING + 1), within=scaled(20))
            assert replies == list(range(1, 2 * MAX_OUTSTANDING + 2))
            await multiplexer.run([("DEL", key)], within=scaled(20))

    async def test_cancelled_between_two(self) -> None:
        """Cancelled between two batches, the cause says that commands were carried out."""
        async with FakeServer(lambda words: SILENCE) as server, Multiplexer(Connector(server.url)) as multiplexer:
            batches = multiplexer.run([("SET", "a", n) for n in range(MAX_OUTSTANDING + 1)], within=scaled(20))
            others = multiplexer.run([("SET", "b", n) for n in range(MAX_OUTSTANDING)], within=scaled(20))
            async with running(batches) as running_task, running(others):
                await wait_until(lambda: len(server.commands) == MAX_OUTSTANDING)
                server.say(OK * MAX_OUTSTANDING)
                await wait_until(lambda: len(server.commands) == 2 * MAX_OUTSTANDING)
                cause = await _cause_of(running_task)
        assert isinstance(cause, TransportError)
        assert cause.maybe_done
        assert [b"SET", b"a", str(MAX_OUTSTANDING).encode()] not in server.commands


class TestEnds:
    """Deadlines that have passed, and a closed multiplexer."""

    @pytest.mark.parametrize("within", [0.0, -1.0])
    async def test_deadline_has_passed(self, within: float) -> None:
        """A command whose deadline has passed is not sent, so that its outcome is not in doubt."""
        async with FakeServer(_echo) as server, Multiplexer(Connector(server.url)) as multiplexer:
            await multiplexer.run([("ECHO", "t")], within=scaled(10))
            for count in (1, MAX_OUTSTANDING + 1):
                replies = await multiplexer.run([("ECHO", "u")] * count, within=within)
                assert len(replies) == count
                assert not any(reply.maybe_done for reply in replies)
        assert len(server.commands) == 1

    async def test_closed(self) -> None:
        """Callers that wait when it is closed, or come later, get errors that say whether their command was sent."""
        async with FakeServer(lambda _: SILENCE) as server:
            async with Multiplexer(Connector(server.url)) as multiplexer:
                sent = asyncio.create_task(multiplexer.run([("ECHO", "sent")], within=scaled(60)))
                await wait_until(lambda: len(server.commands) == 1)
                late = asyncio.create_task(multiplexer.run([("ECHO", "late")] * MAX_OUTSTANDING, within=scaled(60)))
                await asyncio.sleep(0)
            for task, maybe_done in ((sent, True), (late, False)):
                error = (await soon(task))[-1]
                assert isinstance(error, ConnectionFailed)
                assert error.maybe_done == maybe_done
            (error,) = await soon(multiplexer.run([("ECHO", "after")], within=0.05))
            assert isinstance(error, ConnectionFailed)
            assert not error.maybe_done
        assert len(server.commands) == 1
