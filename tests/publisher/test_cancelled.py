"""Callers who give up a publish, and closing while some are under way."""

from __future__ import annotations

import asyncio

import pytest

from jwt_events import Publisher, PublishOutcomeUnknown, RedisPubSub, TokenRevoked
from tests.support.fake_server import HANG_UP, OK, SILENCE, FakeServer
from tests.support.records import recorded
from tests.support.waiting import scaled, wait_until

RECEIVED_BY_ONE = b":1\r\n"


def revoked(number: int = 0) -> TokenRevoked:
    """An event that is told from others by its number."""
    return TokenRevoked(token_id=f"t{number}")


async def until_received(server: FakeServer, number: int) -> None:
    """Wait until so many events have reached the server."""
    await wait_until(lambda: len(server.received(b"PUBLISH")) == number)


async def test_after_sending_the_cancellation_says_so() -> None:
    """The CancelledError's cause has the event's id; others on the same publisher get their receipts."""
    one, other = revoked(1), revoked(2)
    async with FakeServer(lambda _: SILENCE) as server, Publisher(RedisPubSub(server.url)) as publisher:
        tasks = [asyncio.create_task(publisher.publish(event)) for event in (one, other)]
        await until_received(server, 2)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert tasks[0].cancelled()
        with pytest.raises(asyncio.CancelledError) as caught:
            tasks[0].result()
        server.say(RECEIVED_BY_ONE * 2)
        assert (await tasks[1]).event_id == other.id
    cause = caught.value.__cause__
    assert isinstance(cause, PublishOutcomeUnknown)
    assert cause.event_ids == (one.id,)


async def test_a_late_answer_belongs_to_whoever_gave_up() -> None:
    """An answer that comes too late for one is not taken for that of another who waits behind."""
    async with FakeServer(lambda _: SILENCE) as server, Publisher(RedisPubSub(server.url)) as publisher:
        patient = []
        for number in range(3):
            impatient = asyncio.create_task(publisher.publish(revoked(number), timeout=scaled(0.3)))
            patient.append(asyncio.create_task(publisher.publish(revoked(number + 10), timeout=scaled(10))))
            await until_received(server, 2 * number + 2)
            await asyncio.wait([impatient])
            assert isinstance(impatient.exception(), PublishOutcomeUnknown)
            server.say(b":%d\r\n:%d\r\n" % (number, number + 10))
            await asyncio.wait(patient)
    assert [task.result().receivers for task in patient] == [10, 11, 12]
    assert server.connections == 1


async def test_between_two_tries_the_cancellation_says_so() -> None:
    """Whoever is cancelled while a publish waits for its next try hears that the try before may have succeeded."""

    def hang_up(words: list[bytes]) -> bytes | None:
        return HANG_UP if words[0] == b"PUBLISH" else OK

    async with FakeServer(hang_up) as server, Publisher(RedisPubSub(server.url), timeout=scaled(20)) as publisher:
        publishing = asyncio.create_task(publisher.publish(revoked()))
        # The pause before the next try grows, so sooner or later nothing else is under way.
        await wait_until(lambda: len(server.received(b"PUBLISH")) >= 4)
        with recorded() as records:
            await wait_until(lambda: records.of("publish will be tried again", "WARNING"))
        publishing.cancel()
        await asyncio.wait([publishing])
        with pytest.raises(asyncio.CancelledError) as caught:
            publishing.result()
    assert isinstance(caught.value.__cause__, PublishOutcomeUnknown)


async def test_before_sending_nothing_is_sent() -> None:
    """An event whose caller gave up before its turn came is never sent."""
    async with FakeServer(lambda _: SILENCE) as server, Publisher(RedisPubSub(server.url)) as publisher:
        first, second, third = [asyncio.create_task(publisher.publish(revoked(number))) for number in (1, 2, 3)]
        await asyncio.sleep(0)  # all of them wait for the connection
        second.cancel()
        await asyncio.wait([second])
        with pytest.raises(asyncio.CancelledError) as caught:
            second.result()
        await until_received(server, 2)
        server.say(RECEIVED_BY_ONE * 2)
        await asyncio.gather(first, third)
        payloads = b"".join(words[2] for words in server.received(b"PUBLISH"))
    assert caught.value.__cause__ is None
    assert b'"t1"' in payloads
    assert b'"t2"' not in payloads
    assert b'"t3"' in payloads


async def test_closing_waits_for_what_was_accepted() -> None:
    """Closing returns when the last publish has its receipt, however often it is called."""
    async with FakeServer(lambda _: SILENCE) as server:
        publisher = Publisher(RedisPubSub(server.url))
        publishing = asyncio.create_task(publisher.publish(revoked()))
        await until_received(server, 1)
        closings = [asyncio.create_task(publisher.aclose()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(closing.done() for closing in closings)
        server.say(RECEIVED_BY_ONE)
        await asyncio.gather(*closings)
        assert publishing.done()
        assert (await publishing).receivers == 1
