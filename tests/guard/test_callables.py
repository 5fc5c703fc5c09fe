"""Options that are functions: a coroutine that comes back is awaited or refused, and its truth is never asked."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import (
    InvalidOption,
    KeysUnavailable,
    MemoryTransport,
    RevocationList,
    SigningKeys,
    TokenRevoked,
    Unavailable,
)
from jwt_events._internal.functions import awaited, function, is_coroutine_function, plain, plain_function, truth
from jwt_events.guard import Guard, Refused, until_revoked
from jwt_events.testing import ManualClock, eventually
from tests.support.handling import soon
from tests.support.issuers import entry
from tests.support.records import recorded
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled, wait_until

AsyncFunction = Callable[..., Awaitable[Any]]
Form = Callable[[AsyncFunction], Callable[..., Any]]


class AsyncCallable:
    """An object whose ``__call__`` is a coroutine function."""

    def __init__(self, call: AsyncFunction) -> None:
        self._call = call

    async def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return await self._call(*arguments)

    async def method(self, *arguments: Any) -> Any:
        """Call the function."""
        return await self._call(*arguments)


FORMS: dict[str, Form] = {
    "coroutine function": lambda call: call,
    "partial": functools.partial,
    "partial of a partial": lambda call: functools.partial(functools.partial(call)),
    "callable object": AsyncCallable,
    "partial of an object": lambda call: functools.partial(AsyncCallable(call)),
    "bound method": lambda call: AsyncCallable(call).method,
    "plain function": lambda call: lambda *arguments: call(*arguments),  # noqa: PLW0108 - a plain one
}

MODULES = ("jwt_events", *(f"jwt_events.{name}" for name in ("guard", "fastapi", "aiohttp", "keys", "testing")))

# Every parameter of a public function or method that is a function, and who holds what is said above.
HELD_HERE = {
    "BearerGuard.claims_of",
    "BearerGuard.decode",
    "BearerGuard.middleware.is_public",
    "BearerGuard.websocket.token",
    "Guard.claims_of",
    "Guard.decode",
    "ManualClock.call_later.callback",
    "RevocationList.on_gap.function",
    "RevocationList.on_state.function",
    "RevocationList.watch.on_revoked",
    "SigningKeys.fetch",
    "WebSocketGuard.token",
    "eventually.predicate",
    "eventually.what",
    "until_revoked.close",
}
HELD_ELSEWHERE = {
    "Metrics.polling.staleness",  # called by the poller alone, with a function of its own
    "RedisStream.folding.report",  # called by the publisher alone, with a function of its own
    "FaultyTransport.folding.report",  # the same
    "Metrics.view.staleness",  # called by the list alone, with a function of its own
    "Retry.delay.chance",  # called by the library alone: a coroutine is no number
    "Subscriber.on_gap.function",  # as handlers
    "Subscriber.ordered_by",
    "Subscriber.register_handler.handler",  # run in a thread or awaited: tests/subscriber/test_handling.py
    "Watch.on_revoked",  # made by `RevocationList.watch`
    "lifespan.then",  # entered, not called for an answer
    "public.handler",  # called by aiohttp
}
FUNCTIONAL = re.compile(r"Callable\[|\bCallback\b|\b_F\b|AnyHandler|FetchFunction|EventHandler")


def parameters() -> Iterator[str]:
    """Yield the parameters of the public API that are functions, as ``Class.method.parameter``."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            public = getattr(module, name)
            members = {name: public}
            if inspect.isclass(public):
                own = {key for cls in public.__mro__ if cls.__module__.startswith("jwt_events") for key in vars(cls)}
                members |= {f"{name}.{key}": getattr(public, key) for key in own if not key.startswith("_")}
            for path, member in members.items():
                if callable(member):
                    yield from (f"{path}.{one}" for one in _functional(member))


def _functional(member: Any) -> Iterator[str]:
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):  # an enumeration, for example
        return
    for parameter in signature.parameters.values():
        if FUNCTIONAL.search(str(parameter.annotation)):
            yield parameter.name


def test_every_option_is_held() -> None:
    """Every option that is a function is in one of the tables above: a new one needs a test, and an entry."""
    assert set(parameters()) == HELD_HERE | HELD_ELSEWHERE


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """A way to pass a coroutine function."""
    return FORMS[request.param]


@pytest.fixture
async def revocations() -> AsyncIterator[RevocationList]:
    """An open revocation list."""
    async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
        yield revocations


async def status(app: web.Application, path: str, token: str | None = None) -> int:
    """Run an application, and return the status of one response."""
    headers = None if token is None else bearer(token)
    async with (
        aiohttp_server(app) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
        client.get(path, headers=headers) as response,
    ):
        return response.status


class TestGuard:
    """``decode``, ``claims_of`` and ``close``."""

    async def test_decode(self, form: Form, revocations: RevocationList) -> None:
        """A ``decode`` in every form is awaited."""

        async def verify(token: str) -> dict[str, Any]:
            return decode(token)

        guard = Guard(revocations, form(verify))
        assert (await guard.admit_token(token_of())).value["sub"] == "alice"
        with pytest.raises(Refused) as caught:
            await guard.admit_token(token_of(exp=1))
        assert caught.value.code == "invalid_token"

    async def test_claims_of(self, form: Form, revocations: RevocationList) -> None:
        """A ``claims_of`` in every form is awaited."""

        async def claims_of(user: str) -> dict[str, Any]:
            return {"sub": user}

        guard = Guard(revocations, lambda token: token, claims_of=form(claims_of))
        assert (await guard.admit_token("alice")).claims == {"sub": "alice"}
        revocations.apply(TokenRevoked(user_id="alice"))
        with pytest.raises(Refused) as caught:
            await guard.admit_token("alice")
        assert caught.value.code == "revoked_token"

    @pytest.mark.parametrize("result", ["coroutine", "generator", "asynchronous generator", "none", "false"])
    async def test_nothing_was_verified(self, result: str, revocations: RevocationList) -> None:
        """Whatever comes back that is no verified token is a refusal, whatever ``claims_of`` makes of it."""

        async def later() -> dict[str, Any]:
            return {}

        async def asynchronous() -> AsyncIterator[int]:
            yield 1

        made: dict[str, Callable[[], Any]] = {
            "coroutine": later,
            "generator": lambda: (number for number in range(3)),
            "asynchronous generator": asynchronous,
            "none": lambda: None,
            "false": lambda: False,
        }

        async def verify(token: str) -> Any:
            return made[result]()

        with pytest.raises(Refused) as caught:
            await Guard(revocations, verify, claims_of=lambda value: {"sub": "alice"}).admit_token("opaque")
        assert caught.value.status == 401

    async def test_close(self, form: Form, revocations: RevocationList) -> None:
        """A ``close`` in every form is awaited."""
        closed, go_on = asyncio.Event(), asyncio.Event()

        async def close() -> None:
            await asyncio.sleep(0)
            closed.set()
            go_on.set()

        async def items() -> AsyncIterator[int]:
            yield 1
            revocations.apply(TokenRevoked(user_id="alice"))
            while not go_on.is_set():
                with suppress(asyncio.CancelledError):
                    await go_on.wait()

        passed_on = until_revoked(revocations, {"sub": "alice"}, items(), close=form(close))
        async with aclosing(passed_on):
            assert [item async for item in passed_on] == [1]
        assert closed.is_set()


class TestDoors:
    """``is_public`` and ``token`` on real servers."""

    async def test_is_public(self, form: Form) -> None:
        """An ``is_public`` in every form decides by what it returns in the end."""

        async def is_public(request: web.Request) -> bool:
            await asyncio.sleep(0)
            return request.path == "/public"

        app = self.app(form(is_public))
        assert [await status(self.app(form(is_public)), path) for path in ("/admin", "/public")] == [401, 200]
        assert await status(app, "/admin", "forged") == 401

    @pytest.mark.parametrize(
        "is_public",
        [
            lambda request: lambda: False,
            lambda request: request.path.startswith,
            lambda request: (number for number in range(3)),
            lambda request: functools.partial(bool),
            lambda request: 1 / 0,
            lambda request: request["missing"],
        ],
    )
    async def test_odd_results(self, is_public: Any) -> None:
        """What is true by its kind alone, and an error, let nobody in without a token, and somebody with one."""
        with recorded() as records:
            assert await status(self.app(is_public), "/admin") == 401
            assert await status(self.app(is_public), "/admin", token_of()) == 200
        assert len(records.of("request needs a token, is_public failed", "ERROR")) == 2

    async def test_cancelled_from_within(self) -> None:
        """A predicate that waited for something which was cancelled says nothing, and ends no request."""
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()

        async def is_public(request: web.Request) -> bool:
            return bool(await shared)

        for predicate in (is_public, lambda request: shared.result()):
            assert await status(self.app(predicate), "/admin") == 401
            assert await status(self.app(predicate), "/admin", token_of()) == 200

    async def test_result_of_a_result(self) -> None:
        """A coroutine that a coroutine returns is not true either."""

        async def inner() -> bool:
            return False

        async def outer(request: web.Request) -> Any:
            return inner()

        assert await status(self.app(outer), "/admin") == 401

    @pytest.mark.parametrize("match", [True, "text", re.match("a", "a"), False, "", None, 0])
    async def test_plain_results(self, match: object) -> None:
        """Values are asked for their truth, as Python does."""
        assert await status(self.app(lambda request: match), "/admin") == (200 if match else 401)

    @staticmethod
    def app(is_public: Any) -> web.Application:
        """Return an application with a middleware."""
        revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
        guard = jwt_events.aiohttp.BearerGuard(revocations, decode)

        async def handler(request: web.Request) -> web.Response:
            return web.Response()

        app = web.Application(middlewares=[guard.middleware(is_public=is_public)])
        app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
        app.router.add_get("/admin", handler)
        app.router.add_get("/public", handler)
        return app

    @pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
    async def test_token(self, form: Form, framework: str) -> None:
        """A ``token`` in every form is awaited: what it returns is verified, and nothing is let in without."""

        async def token(connection: Any) -> str | None:
            await asyncio.sleep(0)
            query = connection.query if framework == "aiohttp" else connection.query_params
            found: str | None = query.get("token")
            return found

        async with self.sockets(framework, form(token)) as address:
            assert await self.opened(address, token_of())
            for other in (None, "forged", token_of(exp=1)):
                assert not await self.opened(address, other)

    @pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
    @pytest.mark.parametrize("result", [b"bytes", ["list"], 7, print, True])
    async def test_odd_tokens(self, framework: str, result: Any) -> None:
        """A ``token`` that returns something else than text, or fails, lets nothing in."""
        async with self.sockets(framework, lambda connection: result) as address:
            assert not await self.opened(address, None)
        async with self.sockets(framework, lambda connection: connection["missing"]) as address:
            assert not await self.opened(address, None)

    @staticmethod
    def sockets(framework: str, token: Any) -> Any:
        """Run a server with a guarded WebSocket."""
        revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
        if framework == "aiohttp":
            guard = jwt_events.aiohttp.BearerGuard(revocations, decode)

            @guard.websocket(token=token)
            async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
                await websocket.send_str("hello")

            app = web.Application()
            app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
            app.router.add_get("/feed", feed)
            return aiohttp_server(app)
        live = jwt_events.fastapi.WebSocketGuard(jwt_events.fastapi.BearerGuard(revocations, decode), token=token)
        api = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

        @api.websocket("/feed", dependencies=[Depends(live)])
        async def feed_of_fastapi(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text("hello")

        return uvicorn_server(api)

    @staticmethod
    async def opened(address: str, token: str | None) -> bool:
        """Return whether a WebSocket is opened with a token in the query; any refusal has to be one of a guard."""
        try:
            async with connect(
                f"ws://{address}/feed" + ("" if token is None else f"?token={token}"), open_timeout=scaled(30)
            ) as websocket:
                assert await soon(websocket.recv()) == "hello"
                return True
        except InvalidStatus as refused:
            if refused.response.status_code not in (400, 401):
                raise
            return False


class TestOthers:
    """Functions that decide about no request, or are called with nobody to wait for them."""

    async def test_fetch(self, form: Form) -> None:
        """A ``fetch`` in every form is awaited."""

        async def fetch() -> dict[str, Any]:
            return {"keys": [entry("one")]}

        async with SigningKeys(form(fetch)) as keys:
            assert (await keys.get("one")).key_id == "one"

    async def test_plain_fetch(self) -> None:
        """A plain ``fetch`` runs in a thread, where it may block, and its errors are those of any fetch."""
        running = asyncio.Event()
        loop = asyncio.get_running_loop()

        def fetch() -> dict[str, Any]:
            asyncio.run_coroutine_threadsafe(_set(running), loop).result()  # would wait for ever on the event loop
            return {"keys": [entry("one")]}

        def away() -> dict[str, Any]:
            raise StopIteration

        async with SigningKeys(fetch, timeout=scaled(5)) as keys:
            assert (await keys.get("one")).key_id == "one"
        assert running.is_set()
        with pytest.raises(KeysUnavailable):
            await SigningKeys(away).get("one")

    @pytest.mark.parametrize("register", ["on_revoked", "on_gap", "on_state"])
    async def test_callbacks(self, form: Form, register: str) -> None:
        """A callback in every form is run to its end."""
        ran: list[object] = []

        async def note(*arguments: object) -> None:
            await asyncio.sleep(0)
            ran.append(arguments)

        revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
        if register != "on_revoked":
            getattr(revocations, register)(form(note))
        async with revocations:
            if register == "on_gap":
                revocations._view.report_gap(jwt_events.Gap(None, "test", None))
            if register == "on_revoked":
                async with revocations.watch({"sub": "alice"}, form(note)):
                    revocations.apply(TokenRevoked(user_id="alice"))
                    await wait_until(lambda: ran)
            await wait_until(lambda: ran)

    async def test_waiting(self, form: Form) -> None:
        """A condition in every form is awaited, and its description must be text."""

        async def never() -> bool:
            return False

        with pytest.raises(AssertionError):
            await eventually(form(never), within=0.0001)
        with pytest.raises(InvalidOption):
            await eventually(lambda: False, within=0.0001, what=form(never))

    async def test_clock(self) -> None:
        """A coroutine function is refused where it would not be awaited."""

        async def call() -> None: ...

        with pytest.raises(InvalidOption, match="callback"):
            ManualClock().call_later(1, call)


async def _set(event: asyncio.Event) -> None:
    event.set()


class TestRefusedWhenPassed:
    """Functions of which it is known beforehand that no call returns what is needed."""

    @pytest.mark.parametrize("kind", ["generator", "asynchronous generator", "partial", "object", "text"])
    def test_options(self, kind: str) -> None:
        """Generator functions, and what cannot be called, are refused by the name of the option."""

        def generate(*arguments: object) -> Iterator[bool]:
            yield False

        async def later(*arguments: object) -> AsyncIterator[bool]:
            yield False

        class Generating:
            def __call__(self, *arguments: object) -> Iterator[bool]:
                yield False

        kinds: dict[str, Any] = {
            "generator": generate,
            "asynchronous generator": later,
            "partial": functools.partial(functools.partial(later)),
            "object": Generating(),
            "text": "text",
        }
        bad = kinds[kind]
        revocations = RevocationList(MemoryTransport())
        of_aiohttp = jwt_events.aiohttp.BearerGuard(revocations, decode)
        of_fastapi = jwt_events.fastapi.BearerGuard(revocations, decode)
        uses: dict[str, Callable[[], object]] = {
            "decode": lambda: Guard(revocations, bad),
            "claims_of": lambda: Guard(revocations, decode, claims_of=bad),
            "is_public": lambda: of_aiohttp.middleware(is_public=bad),
            "token": lambda: of_aiohttp.websocket(token=bad),
            "serve": lambda: of_aiohttp.websocket()(bad),
            " token": lambda: jwt_events.fastapi.WebSocketGuard(of_fastapi, token=bad),
            "fetch": lambda: SigningKeys(bad),
            "on_gap": lambda: revocations.on_gap(bad),
            "on_state": lambda: revocations.on_state(bad),
        }
        for option, use in uses.items():
            with pytest.raises(InvalidOption) as caught:
                use()
            assert caught.value.option == option.strip()

    def test_plain_functions(self, form: Form) -> None:
        """Where nothing is awaited, a coroutine function is refused when passed, and a coroutine when it comes back."""

        async def call() -> bool:
            return True

        passed = form(call)
        if is_coroutine_function(passed):
            with pytest.raises(InvalidOption, match="plain function"):
                plain_function("option", passed)
        else:
            with pytest.raises(InvalidOption, match="not a coroutine"):
                plain("option", plain_function("option", passed)())

    async def test_results(self) -> None:
        """Values pass unchanged; functions are no truth."""
        assert (await awaited("option", 5), plain("option", "text"), truth("option", [0])) == (5, "text", True)
        assert function("option", print) is print

    async def test_cancelled(self) -> None:
        """A cancellation of the task passes, one of what it waits for does not; that one says so."""

        async def wait_for(future: asyncio.Future[None]) -> None:
            await future

        loop = asyncio.get_running_loop()
        theirs = asyncio.create_task(awaited("option", wait_for(shared := loop.create_future())))
        mine = asyncio.create_task(awaited("option", wait_for(loop.create_future())))
        await asyncio.sleep(0)
        shared.cancel()
        mine.cancel()
        with pytest.raises(Unavailable, match="option"):
            await theirs
        with pytest.raises(asyncio.CancelledError):
            await mine
        assert not theirs.cancelled()

    async def test_functions_are_no_truth(self) -> None:
        """A function is always true, so its truth says nothing."""
        with pytest.raises(InvalidOption, match="always true"):
            truth("option", print)
