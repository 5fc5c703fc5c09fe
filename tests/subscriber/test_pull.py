"""Events one by one, instead of handlers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from jwt_events import Closed, Gap, MemoryTransport, Subscriber, UnknownEvent
from tests.support.examples import EVENTS, revoked
from tests.support.handling import Recorder, publish, running, soon
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until


@pytest.fixture
def transport() -> ScriptedTransport:
    """Where the events of a test come from."""
    return ScriptedTransport()


@pytest.fixture
def subscriber(transport: ScriptedTransport) -> Subscriber:
    """A subscriber without handlers."""
    return Subscriber(transport)


class TestAlone:
    """Without `async with` around it."""

    async def test_subscribes_by_itself(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Asking for the first event subscribes, closing the iterator unsubscribes."""
        transport.deliver(*map(revoked, range(3)))
        async with aclosing(subscriber.events()) as events:
            assert transport.open == 0
            got = [await soon(anext(events)) for _ in range(3)]
            assert transport.open == 1
        assert [event.subject for event in got] == ["token-0", "token-1", "token-2"]
        assert transport.open == 0

    async def test_every_type(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Every event is handed out, unknown ones too."""
        sent = [event.model_copy(update={"id": str(n)}) for n, event in enumerate(EVENTS)]
        sent.append(UnknownEvent(type="jwt.other.v1", source="elsewhere"))
        transport.deliver(*sent)
        async with aclosing(subscriber.events()) as events:
            assert [await soon(anext(events)) for _ in sent] == sent

    async def test_break(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Leaving the loop unsubscribes soon, as Python closes the iterator in the background."""
        transport.deliver(revoked(1), revoked(2))
        async for event in subscriber.events():
            assert event.subject == "token-1"
            break
        await wait_until(lambda: transport.open == 0)

    async def test_error_in_the_loop(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """An exception in the body of the loop comes out as it is."""

        async def pull() -> None:
            async with aclosing(subscriber.events()) as events:
                async for event in events:
                    raise KeyError(event.subject)

        transport.deliver(revoked())
        with pytest.raises(KeyError, match="token-1"):
            await soon(pull())
        assert transport.open == 0

    async def test_cancelled(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Cancelled while it waits for an event, it unsubscribes."""

        async def pull() -> None:
            async with aclosing(subscriber.events()) as events:
                async for _ in events:
                    pass

        async with running(pull()) as task:
            await wait_until(lambda: transport.opened)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert transport.open == 0

    async def test_again(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """One can come back for more."""
        for number in (1, 2):
            transport.deliver(revoked(number))
            async with aclosing(subscriber.events()) as events:
                assert (await soon(anext(events))).subject == f"token-{number}"
        assert transport.opened == 2

    async def test_handlers_after_it(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """A subscriber that handed out events can have handlers in its next life, and events wait for them."""
        transport.deliver(revoked(1))
        async with aclosing(subscriber.events()) as events:
            await soon(anext(events))
        recorder = Recorder()
        async with subscriber:
            transport.deliver(revoked(2))
            await wait_until(lambda: subscriber.stats.received == 2)
            subscriber.on()(recorder)
            await recorder.has_seen(1)


class TestInside:
    """Inside `async with`."""

    async def test_from_the_moment_of_entering(self) -> None:
        """What was sent between entering and asking is there."""
        transport = MemoryTransport()
        async with Subscriber(transport) as subscriber:
            await publish(transport, *map(revoked, range(3)))
            async with aclosing(subscriber.events()) as events:
                got = [await soon(anext(events)) for _ in range(3)]
        assert [event.subject for event in got] == ["token-0", "token-1", "token-2"]

    async def test_the_subscription_outlives_the_loop(
        self, transport: ScriptedTransport, subscriber: Subscriber
    ) -> None:
        """Leaving the loop keeps the subscription; another loop goes on where the first was left."""
        transport.deliver(*map(revoked, range(4)))
        got = []
        async with subscriber:
            for _ in range(2):
                async with aclosing(subscriber.events()) as events:
                    async for event in events:
                        got.append(event.subject)
                        if len(got) % 2 == 0:
                            break
                assert transport.open == 1
        assert got == ["token-0", "token-1", "token-2", "token-3"]

    @pytest.mark.parametrize("end", [Subscriber.stop, Subscriber.drain], ids=["stop", "drain"])
    async def test_ended(self, transport: ScriptedTransport, subscriber: Subscriber, end: object) -> None:
        """When the subscriber is ended, what was taken in is handed out, and then the loop ends."""
        assert callable(end)
        transport.deliver(revoked(1), revoked(2))
        got = []
        async with subscriber, aclosing(subscriber.events()) as events:
            async for event in events:
                got.append(event.subject)
                if len(got) == 1:
                    await wait_until(lambda: subscriber.stats.received == 2)
                    await soon(end(subscriber))
        assert got == ["token-1", "token-2"]

    async def test_after_the_end(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Asking a subscriber that was stopped gives no events."""
        async with subscriber:
            await subscriber.stop()
            assert [event async for event in subscriber.events()] == []

    async def test_two_loops(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Two loops at the same time would share the events between them, so the second is refused."""
        transport.deliver(revoked(1))
        async with subscriber, aclosing(subscriber.events()) as events:
            await soon(anext(events))
            with pytest.raises(Closed, match="running already"):
                await anext(subscriber.events())
            transport.deliver(revoked(2))
            assert (await soon(anext(events))).subject == "token-2"


class TestRules:
    """Handlers or a loop, not both; and no more than there is room for."""

    async def test_handlers_are_registered(self, subscriber: Subscriber) -> None:
        """With handlers there is nothing to hand out."""
        subscriber.on()(Recorder())
        with pytest.raises(Closed, match="handlers are registered"):
            await anext(subscriber.events())

    async def test_registering_during_a_loop(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """While events are handed out no handler can be registered."""
        transport.deliver(revoked())
        async with aclosing(subscriber.events()) as events:
            await soon(anext(events))
            with pytest.raises(Closed, match="handing out"):
                subscriber.on()(Recorder())

    async def test_gaps(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Gap callbacks are called all the same."""
        heard = Recorder()
        subscriber.on_gap(heard)
        transport.deliver(revoked(), gaps=(Gap(None, "reconnected"),))
        async with aclosing(subscriber.events()) as events:
            await soon(anext(events))
            await heard.has_seen(1)

    async def test_no_more_than_there_is_room_for(self, transport: ScriptedTransport) -> None:
        """A slow loop slows down reading: no more than `concurrency` events are taken in ahead."""
        subscriber = Subscriber(transport, concurrency=4)
        transport.deliver(*map(revoked, range(10)))
        async with subscriber, aclosing(subscriber.events()) as events:
            await soon(anext(events))
            await wait_until(lambda: subscriber.stats.received == 5)
            await soon(anext(events))
            await wait_until(lambda: subscriber.stats.received == 6)

    async def test_handled_when_the_next_is_asked_for(
        self, transport: ScriptedTransport, subscriber: Subscriber
    ) -> None:
        """An event whose loop body was not finished does not count as handled."""
        transport.deliver(*map(revoked, range(3)))
        async with subscriber, aclosing(subscriber.events()) as events:
            await soon(anext(events))
            assert subscriber.stats.handled == 0
            await soon(anext(events))
            assert subscriber.stats.handled == 1
        assert subscriber.stats.handled == 1

    async def test_what_nobody_took_was_dropped(self, transport: ScriptedTransport, subscriber: Subscriber) -> None:
        """Events that were read ahead and not taken count as dropped."""
        transport.deliver(*map(revoked, range(5)))
        async with subscriber, aclosing(subscriber.events()) as events:
            await soon(anext(events))
            await wait_until(lambda: subscriber.stats.received == 5)
        assert subscriber.stats.dropped == 4
