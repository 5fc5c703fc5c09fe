"""What may be a handler, and how it is run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from jwt_events import (
    Event,
    EventType,
    InvalidOption,
    MemoryTransport,
    Retry,
    RevocationList,
    Subscriber,
    TokenRevoked,
    UnknownEvent,
)
from jwt_events.events._routing import Handler, Routes
from tests.support.examples import EVENTS, revoked
from tests.support.handling import Recorder, publish
from tests.support.waiting import wait_until


@pytest.fixture
def transport() -> MemoryTransport:
    """Where the events of a test travel."""
    return MemoryTransport()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a blocking handler waits for; set in the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()


class TestKindsOfHandlers:
    """What may be a handler."""

    @pytest.mark.parametrize("kind", ["coroutine function", "method", "callable object", "partial", "lambda", "mock"])
    async def test_async(self, transport: MemoryTransport, kind: str) -> None:
        """Whatever leads to a coroutine is awaited, on the event loop."""
        recorder, threads = Recorder(), set()

        async def function(event: Event, mode: int = 0) -> None:
            threads.add(threading.get_ident())
            await recorder(event)

        handler: Any = {
            "coroutine function": function,
            "method": recorder.__call__,
            "callable object": recorder,
            "partial": partial(partial(function), mode=1),
            "lambda": lambda event: function(event, mode=2),
            "mock": AsyncMock(side_effect=function),
        }[kind]
        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(handler)
        async with subscriber:
            await publish(transport, revoked())
            await recorder.has_seen(1)
        assert threads <= {threading.get_ident()}

    @pytest.mark.parametrize("kind", ["function", "method", "callable object", "partial", "lambda", "mock", "builtin"])
    async def test_sync(self, transport: MemoryTransport, kind: str) -> None:
        """Whatever is no coroutine function is run in a thread."""
        seen: list[Event] = []
        threads: set[int] = set()

        class Plain:
            def method(self, event: Event) -> None:
                threads.add(threading.get_ident())
                seen.append(event)

            __call__ = method

        def function(event: Event) -> bool:
            Plain().method(event)
            return True

        handlers: dict[str, Any] = {
            "function": function,
            "method": Plain().method,
            "callable object": Plain(),
            "partial": partial(Plain.method, Plain()),
            "lambda": lambda event: not function(event),
            "mock": Mock(side_effect=Plain()),
            "builtin": seen.append,
        }
        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(handlers[kind])
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert [event.subject for event in seen] == ["token-1"]
        assert threading.get_ident() not in threads

    async def test_sync_and_async_wrappers(self, transport: MemoryTransport) -> None:
        """A decorated function is what its decorator made of it."""
        recorder = Recorder()

        @wraps(recorder.__call__)
        def returns_a_coroutine(event: Event) -> Any:
            return recorder(event)

        @wraps(print)
        async def looks_plain(event: Event) -> None:
            await recorder(event)

        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(returns_a_coroutine)
        subscriber.on(TokenRevoked)(looks_plain)
        async with subscriber:
            await publish(transport, revoked())
            await recorder.has_seen(2)

    async def test_blocking_handler_blocks_nobody(self, transport: MemoryTransport, release: threading.Event) -> None:
        """While plain functions block their threads, the event loop and other handlers go on."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on(TokenRevoked)(lambda _: release.wait())
        subscriber.on(TokenRevoked)(recorder)
        async with subscriber:
            await publish(transport, *map(revoked, range(30)))
            await recorder.has_seen(30)
            await wait_until(lambda: subscriber.stats.in_flight == 30, what="the end of all calls that do not block")
            release.set()
            await wait_until(lambda: subscriber.stats.handled == 30)

    async def test_context_variables_reach_threads(self, transport: MemoryTransport) -> None:
        """A plain function sees the context in which the subscriber was entered, like an async one."""
        variable, found = ContextVar("variable", default="unset"), []
        subscriber = Subscriber(transport)
        subscriber.on(TokenRevoked)(lambda _: found.append(variable.get()))
        variable.set("set before entering")
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert found == ["set before entering"]


class TestOutermost:
    """The outermost callable decides how a handler is called; what it returns is awaited if it can be."""

    async def test_filter(self, transport: MemoryTransport) -> None:
        """A plain decorator may leave the function inside uncalled."""
        recorder = Recorder()

        def only(subject: str) -> Any:
            def decorate(function: Any) -> Any:
                @wraps(function)
                def wrapper(event: Event) -> Any:
                    return function(event) if event.subject == subject else None

                return wrapper

            return decorate

        async def record(event: Event) -> None:
            await recorder(event)

        subscriber = Subscriber(transport, retry=Retry(attempts=1))
        subscriber.on(TokenRevoked)(only(str(revoked(2).subject))(record))
        async with subscriber:
            await publish(transport, revoked(1), revoked(2))
            await wait_until(lambda: subscriber.stats.handled == 2)
        assert recorder.subjects == [revoked(2).subject]

    async def test_a_loop_of_its_own(self, transport: MemoryTransport) -> None:
        """A plain decorator may run the function inside in another event loop."""
        seen = list[Event]()

        async def record(event: Event) -> None:
            seen.append(event)

        @wraps(record)
        def in_own_loop(event: Event) -> None:
            asyncio.run(record(event))

        subscriber = Subscriber(transport, retry=Retry(attempts=1))
        subscriber.on(TokenRevoked)(in_own_loop)
        async with subscriber:
            await publish(transport, revoked(1))
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert len(seen) == 1

    def test_kinds_of_functions(self) -> None:
        """It is awaited if a call of it returns a coroutine; it runs in a thread otherwise."""

        class Asynchronous:
            async def __call__(self, event: Event) -> None: ...
            async def method(self, event: Event) -> None: ...

        async def function(event: Event, more: int = 0) -> None: ...

        @wraps(function)
        def around(event: Event) -> Any: ...

        @wraps(print)
        async def inside_out(event: Event) -> None: ...

        awaited = (Asynchronous(), Asynchronous().method, function, partial(function, more=1), inside_out)
        assert all(Handler.of(one).is_async for one in (*awaited, partial(partial(function), more=1), AsyncMock()))
        assert not any(Handler.of(one).is_async for one in (around, partial(around), print))

    def test_generators(self) -> None:
        """A generator function, of which a call would run nothing, is refused when it is registered."""

        def generator(event: Event) -> Any:
            yield

        async def asynchronous(event: Event) -> Any:
            yield

        for function in (generator, asynchronous, partial(generator)):
            with pytest.raises(InvalidOption, match=r"handler: .* generator function"):
                Subscriber(MemoryTransport()).on()(function)

    @pytest.mark.parametrize("make", [Subscriber, RevocationList])
    def test_arguments(self, make: Any) -> None:
        """A function that cannot be called with an event is refused when it is registered; a decorator decides."""

        def none() -> None: ...

        async def two(event: Event, database: object) -> None: ...

        @wraps(two)
        async def injecting(event: Event) -> None: ...

        registering = make(MemoryTransport())
        refused: list[Any] = [none, two, partial(none), lambda *, event: None]
        accepted: list[Any] = [injecting, partial(two, database=object()), print, Mock(), lambda *events: None]
        for function in refused:
            for register in (registering.on(), registering.on_gap):
                with pytest.raises(InvalidOption, match="must be callable with one argument"):
                    register(function)
        for function in accepted:
            assert registering.on()(function) is function

    @pytest.mark.parametrize("make", [Subscriber, RevocationList])
    def test_missing_parentheses(self, make: Any) -> None:
        """A decorator without its parentheses is refused, and does not swallow the function."""
        with pytest.raises(InvalidOption, match=r"decorate with parentheses, `on\(\)` for every event"):
            make(MemoryTransport()).on(print)

    @pytest.mark.parametrize(
        "kind", ["typo", 5, None, int, TokenRevoked(token_id="t")], ids=["text", "number", "none", "class", "event"]
    )
    @pytest.mark.parametrize("make", [Subscriber, RevocationList])
    def test_unknown_kinds(self, make: Any, kind: object) -> None:
        """What is no kind of events is refused where it is written, and the known kinds are named."""
        with pytest.raises(InvalidOption, match=r"TokenRevoked \('token_revoked'\), .*KeyRotated"):
            make(MemoryTransport()).on(kind)


class TestHandler:
    """How a handler is described."""

    def test_name(self) -> None:
        """A handler is called by its qualified name, whatever it is wrapped in."""
        recorder = Recorder()
        for function, name in (
            (recorder.has_seen, "Recorder.has_seen"),
            (partial(recorder.has_seen), "Recorder.has_seen"),
            (partial(partial(print, 1), 2), "print"),
            (recorder, "Recorder"),
            (Mock(), "Mock"),
        ):
            assert Handler.of(function).name == name

    @pytest.mark.parametrize("mock", [Mock, MagicMock, AsyncMock])
    def test_objects_that_have_every_attribute(self, mock: type[Mock]) -> None:
        """An object that pretends to have any attribute, as mocks do, is taken for what it is: callable."""
        handler = mock()
        assert Handler.of(handler).function is handler

    def test_an_attribute_called_func(self) -> None:
        """Only of a partial is the function inside looked at."""

        class Wrapper:
            func = staticmethod(print)

            async def __call__(self, event: Event) -> None:
                """Handle an event."""

        handler = Handler.of(Wrapper())
        assert handler.name.endswith("Wrapper")
        assert handler.is_async

    @pytest.mark.parametrize("function", [5, None, "print", b"", object()], ids=lambda value: type(value).__name__)
    def test_not_callable(self, function: Any) -> None:
        """What cannot be called is refused when it is registered, in all ways to register."""
        subscriber = Subscriber(MemoryTransport())
        for register in (subscriber.on(), subscriber.on(TokenRevoked), subscriber.on_gap):
            with pytest.raises(InvalidOption, match="handler: must be callable"):
                register(function)
        with pytest.raises(InvalidOption, match="handler: must be callable"):
            subscriber.register_handler(TokenRevoked, function)


class _Special(TokenRevoked):
    """A class of an application's own; no event that arrives is one of it."""


class TestRoutes:
    """Which handlers an event goes to."""

    def test_those_of_the_class_come_first(self) -> None:
        """An event goes to the handlers of its class, then to those of every event, as they were registered."""
        routes = Routes()
        assert not routes
        every, one, also_every, two = Recorder(), Recorder(), Recorder(), Recorder()
        routes.add(every)
        routes.add(one, [TokenRevoked])
        routes.add(also_every)
        routes.add(two, ["token_revoked", EventType.KEY_ROTATED])
        assert routes
        assert [handler.function for handler in routes.to(revoked())] == [one, two, every, also_every]
        assert [handler.function for handler in routes.to(UnknownEvent(type="other"))] == [every, also_every]

    def test_added_later(self) -> None:
        """A handler that is added after an event was routed gets the next."""
        routes = Routes()
        assert routes.to(revoked()) == ()
        routes.add(print)
        assert [handler.function for handler in routes.to(revoked())] == [print]

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_every_name_of_a_kind(self, event: Event) -> None:
        """A class, its type, and the value of that type mean the same."""
        kind = EventType(event.type)
        for name in (type(event), kind, str(kind)):
            routes = Routes()
            routes.add(print, [name])
            assert [len(routes.to(other)) for other in EVENTS] == [int(other is event) for other in EVENTS]

    @pytest.mark.parametrize(
        "kind", [5, None, "nope", "TOKEN_REVOKED", "jwt.token_revoked.v1", int, str, _Special, Exception, revoked()]
    )
    def test_no_kind(self, kind: Any) -> None:
        """What no event can be is refused, and nothing is registered; so is a class that no event arrives as."""
        subscriber = Subscriber(MemoryTransport())
        with pytest.raises(InvalidOption, match="kinds"):
            subscriber.on(TokenRevoked, kind)(Recorder())
        with pytest.raises(InvalidOption, match="kinds"):
            subscriber.register_handler(kind, Recorder())
        routes = Routes()
        with pytest.raises(InvalidOption, match="kinds"):
            routes.add(print, [TokenRevoked, kind])
        assert not routes

    @pytest.mark.parametrize("kind", [Event, UnknownEvent])
    def test_every_event_has_no_name(self, kind: type[Event]) -> None:
        """To handle every event one names none, and the error says so."""
        with pytest.raises(InvalidOption, match="name none"):
            Subscriber(MemoryTransport()).on(kind)(Recorder())
