"""Who gets which event, and who is told of a gap."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from jwt_events import (
    Event,
    EventType,
    Gap,
    MemoryTransport,
    RedisPubSub,
    RedisStream,
    SessionDestroyed,
    Subscriber,
    TokenRevoked,
    UnknownEvent,
)
from tests.support.examples import EVENTS, revoked
from tests.support.handling import Recorder, publish, soon
from tests.support.scripted import ScriptedTransport
from tests.support.servers import Server
from tests.support.waiting import scaled, wait_until


@pytest.fixture
def transport() -> MemoryTransport:
    """Where the events of a test travel."""
    return MemoryTransport()


class TestRouting:
    """Which handlers an event goes to."""

    async def test_each_type_to_its_handlers(self, transport: MemoryTransport) -> None:
        """A handler of one class gets the events of that class and no others."""
        subscriber = Subscriber(transport)
        recorders = {type(event): Recorder() for event in EVENTS}
        for cls, recorder in recorders.items():
            subscriber.on(cls)(recorder)
        async with subscriber:
            await publish(transport, *(event.model_copy(update={"id": str(n)}) for n, event in enumerate(EVENTS)))
            await wait_until(lambda: subscriber.stats.handled == len(EVENTS))
        assert [[type(event) for event in recorder.seen] for recorder in recorders.values()] == [
            [type(event)] for event in EVENTS
        ]

    async def test_several_handlers_of_one_event(self, transport: MemoryTransport) -> None:
        """Every handler of an event gets it, a function that was registered twice gets it twice."""
        subscriber = Subscriber(transport)
        one, two, every = Recorder(), Recorder(), Recorder()
        subscriber.on(TokenRevoked)(one)
        subscriber.on(TokenRevoked, SessionDestroyed)(two)
        subscriber.on()(every)
        subscriber.on()(every)
        async with subscriber:
            await publish(transport, revoked(), SessionDestroyed(session_id="s"))
            await wait_until(lambda: subscriber.stats.handled == 2)
        assert (one.subjects, two.subjects) == (["token-1"], ["token-1", "s"])
        assert sorted(map(str, every.subjects)) == ["s", "s", "token-1", "token-1"]

    async def test_naming_a_class_twice(self, transport: MemoryTransport) -> None:
        """A class that is named twice in one registration counts once."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on(EventType.TOKEN_REVOKED, EventType.TOKEN_REVOKED)(recorder)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert len(recorder.seen) == 1

    async def test_unknown_events(self) -> None:
        """Only handlers of every event see an event of an unknown type."""
        transport = ScriptedTransport()
        subscriber, typed, every = Subscriber(transport), Recorder(), Recorder()
        for event_type in EventType:
            subscriber.register_handler(event_type, typed)
        subscriber.on()(every)
        unknown = UnknownEvent(type="jwt.session_paused.v1", data={"session_id": "s"}, source="elsewhere")
        async with subscriber:
            transport.deliver(unknown)
            await every.has_seen(1)
        assert every.seen == [unknown]
        assert typed.seen == []

    @pytest.mark.parametrize("kind", [TokenRevoked, EventType.TOKEN_REVOKED, "token_revoked"], ids=repr)
    async def test_register_handler(self, transport: MemoryTransport, kind: Any) -> None:
        """A kind is a class, an EventType, or its value."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.register_handler(kind, recorder)
        async with subscriber:
            await publish(transport, SessionDestroyed(session_id="s"), revoked())
            await recorder.has_seen(1)
        assert recorder.subjects == ["token-1"]

    async def test_decorated_functions_stay_functions(self, transport: MemoryTransport) -> None:
        """Registering a function gives it back unchanged, so it can be called and tested."""
        subscriber = Subscriber(transport)

        def function(event: Event) -> str | None:
            return event.subject

        assert subscriber.on(TokenRevoked)(function) is function
        assert subscriber.on_gap(function) is function

    async def test_events_that_nobody_wants(self, transport: MemoryTransport) -> None:
        """An event without handlers is handled as soon as it arrives."""
        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(Recorder())
        async with subscriber:
            await publish(transport, SessionDestroyed(session_id="s"))
            await wait_until(lambda: subscriber.stats.handled == 1)

    async def test_registered_while_running(self, transport: MemoryTransport) -> None:
        """A handler gets the events that arrive after its registration."""
        subscriber, early, late = Subscriber(transport), Recorder(), Recorder()
        subscriber.on(TokenRevoked)(early)
        async with subscriber:
            await publish(transport, revoked(1))
            await early.has_seen(1)
            subscriber.on(TokenRevoked)(late)
            await publish(transport, revoked(2))
            await late.has_seen(1)
        assert (early.subjects, late.subjects) == (["token-1", "token-2"], ["token-2"])

    async def test_events_wait_for_the_first_handler(self, transport: MemoryTransport) -> None:
        """What arrives before the first handler is registered is kept for it."""
        subscriber, recorder = Subscriber(transport), Recorder()
        async with subscriber:
            await publish(transport, revoked(1), revoked(2))
            await wait_until(lambda: subscriber.stats.received == 1)
            assert subscriber.stats.handled == 0
            subscriber.on(TokenRevoked)(recorder)
            await recorder.has_seen(2)

    async def test_leaving_without_a_handler(self, transport: MemoryTransport) -> None:
        """Events that nobody ever wanted do not keep the subscriber from ending."""
        subscriber = Subscriber(transport, drain_timeout=3_600)
        async with asyncio.timeout(scaled(10)):
            async with subscriber:
                await publish(transport, revoked(1), revoked(2))
                await wait_until(lambda: subscriber.stats.received == 1)
        assert subscriber.stats.dropped == 2


class TestGaps:
    """Who is told that something may have been missed."""

    async def test_callbacks(self) -> None:
        """Every callback, async or not, is called with every gap, and gaps are counted."""
        transport, heard = ScriptedTransport(), Recorder()
        called: list[Gap] = []
        subscriber = Subscriber(transport)
        subscriber.on_gap(heard)
        subscriber.on_gap(called.append)
        gaps = (Gap("1-0", "trimmed", 5), Gap(None, "reconnected"))
        async with subscriber:
            transport.deliver(gaps=gaps)
            await wait_until(lambda: len(called) == 2)
        assert sorted(heard.seen, key=str) == sorted(called, key=str) == sorted(gaps, key=str)
        assert subscriber.stats.gaps == 2

    async def test_a_gap_overtakes_events(self) -> None:
        """A gap is told at once, even while every slot for handlers is taken."""
        transport, heard, stay = ScriptedTransport(), Recorder(), asyncio.Event()
        subscriber = Subscriber(transport, concurrency=1)
        subscriber.on()(lambda _: stay.wait())
        subscriber.on_gap(heard)
        async with subscriber:
            transport.deliver(revoked())
            transport.deliver(gaps=(Gap(None, "disconnected"),))
            await heard.has_seen(1)
            stay.set()

    async def test_nobody_listens(self) -> None:
        """A gap that nobody wants to hear of stops nothing."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        async with subscriber:
            transport.deliver(revoked(), gaps=(Gap(None, "reconnected"),))
            await recorder.has_seen(1)
        assert subscriber.stats.gaps == 1


@pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])
class TestOnRedis:
    """The same on a server."""

    async def test_entered_means_subscribed(
        self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]
    ) -> None:
        """What is published right after entering is received, by all kinds of handlers."""
        transport, recorder = kind(server.url, key), Recorder()
        plain: list[Event] = []
        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(recorder)
        subscriber.on()(plain.append)
        async with subscriber:
            await publish(transport, *map(revoked, range(100)))
            await recorder.has_seen(100)
            await wait_until(lambda: subscriber.stats.handled == 100)
        assert len(plain) == 100
        assert recorder.subjects == [f"token-{n}" for n in range(100)]

    async def test_pull(self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]) -> None:
        """Events can be asked for one by one."""
        transport = kind(server.url, key)
        async with Subscriber(transport) as subscriber:
            await publish(transport, *map(revoked, range(10)))
            async with aclosing(subscriber.events()) as events:
                got = [await soon(anext(events)) for _ in range(10)]
        assert [event.subject for event in got] == [f"token-{n}" for n in range(10)]
