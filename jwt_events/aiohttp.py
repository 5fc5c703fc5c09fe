"""The guard for aiohttp servers: a middleware, WebSockets that close on revocation, resources, readiness.

::

    revocations = RevocationList(RedisStream(url, retention=timedelta(hours=12)))
    guard = BearerGuard(revocations, decode)  # decode: the token -> its claims, or an error

    async def me(request: web.Request) -> web.Response:
        return web.json_response(guard.claims(request)["sub"])

    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(lifespan(revocations))
    app.router.add_get("/me", me)
    app.router.add_get("/ready", readiness_handler(revocations))
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar, cast

from jwt_events._internal.cancellation import timeout
from jwt_events._internal.functions import function
from jwt_events.errors import InvalidOption, RevokedTokenError
from jwt_events.guard import (
    Admission,
    Admissions,
    Guard,
    Item,
    OverdueClose,
    Refused,
    T,
    readiness_of,
    report_end,
    until_revoked,
)
from jwt_events.publisher import Publisher
from jwt_events.revocation import RevocationList
from jwt_events.subscriber import Subscriber

try:
    from aiohttp import web
except ModuleNotFoundError as _error:
    raise ImportError("jwt_events.aiohttp needs aiohttp; get it from a clone: pip install '.[aiohttp]'") from _error

__all__ = [
    "PUBLISHER",
    "REVOCATIONS",
    "SUBSCRIBER",
    "BearerGuard",
    "Refused",
    "lifespan",
    "public",
    "readiness_handler",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., object])

REVOCATIONS = web.AppKey("REVOCATIONS", RevocationList)
"""Key of an application under which `lifespan` stores its first `RevocationList`."""
PUBLISHER = web.AppKey("PUBLISHER", Publisher)
"""Key under which it stores the first `Publisher`."""
SUBSCRIBER = web.AppKey("SUBSCRIBER", Subscriber)
"""Key under which it stores the first `Subscriber`."""

_KEYS: tuple[web.AppKey[Any], ...] = (REVOCATIONS, PUBLISHER, SUBSCRIBER)
_RESOURCES: web.AppKey[Any] = web.AppKey("_RESOURCES", tuple)
_KINDS = (RevocationList, Publisher, Subscriber)

# Request key of the admissions, by guard; before aiohttp 3.14 a request accepts only text as a key.
_ADMISSIONS: Any = web.RequestKey("admissions", dict) if hasattr(web, "RequestKey") else "jwt_events.admissions"

_CLOSE_TIMEOUT = 5.0  # seconds for a client that does not read to take the close; then its connection is cut

# Attributes of handlers: whether they need no token, and the guard that they contain.
_PUBLIC = "_jwt_events_is_public"
_GUARD = "_jwt_events_guard"


def public(handler: AnyHandler) -> AnyHandler:
    """Mark a handler as public: guards let its requests in unchecked.

    A handler is a function or method, a `web.View`, or a method of a view, which alone is public then. A bound method,
    ``public(self.health)``, is public for this object alone; register what is returned.
    """
    marked: Any = handler.__func__ if isinstance(handler, staticmethod | classmethod) else handler
    try:
        setattr(marked, _PUBLIC, True)
    except AttributeError:  # a bound method
        partial: Any = functools.partial(handler)
        setattr(partial, _PUBLIC, True)
        return cast("AnyHandler", partial)
    return handler


class BearerGuard(Guard[T]):
    """Lets requests in whose bearer token is valid and not revoked.

    Its options are those of `jwt_events.guard.Guard`. Other requests are refused with the status, headers and body of
    `Refused`.
    """

    def middleware(self, *, is_public: Callable[[web.Request], object] | None = None) -> Any:
        """Return a middleware that guards all requests, those for paths that do not exist included.

        Preflight requests (CORS) pass, as browsers send them without a token: to handlers for ``OPTIONS``, as libraries
        register them, to other middlewares, and to the 405 of aiohttp, but not to handlers for every method.

        Args:
            is_public: returns whether a request needs no token, for example
                ``lambda request: request.path == "/health"``; a plain or a coroutine function. If it fails, the request
                needs one. Handlers with the `public` decorator need none either.
        """
        if is_public is not None:
            function("is_public", is_public)

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            exempt = self._is_exempt(request) or _is_preflight(request)
            if not exempt and not (is_public is not None and await self._is_true(is_public, request)):
                try:
                    await self.admission(request)
                except Refused as refused:
                    return _response(refused)
            return await handler(request)

        return guarded

    async def admission(self, request: web.Request, *, token: str | None = None) -> Admission[T]:
        """Let a request in, or raise. Called again for the same token, it returns the same, after checking it again.

        Again means: whether it was revoked and whether it has expired, and on a WebSocket everything.

        Args:
            request: the request.
            token: a token that did not come in the ``Authorization`` header; ``None`` looks into the header, so make
                sure that a second token is there. Each token has an admission of its own.

        Raises:
            Refused: the request is not let in.
            HTTPException: the same, in the words of ``decode``.
        """
        authorization = request.headers.getall("Authorization", ())
        is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        return await self._admit_again(self._admissions(request), authorization, token, verify=is_websocket)

    def _admissions(self, request: web.Request) -> Admissions[T]:
        by_guard: dict[Any, Admissions[T]] = request.setdefault(_ADMISSIONS, {})
        return by_guard.setdefault(self, Admissions())

    def claims(self, request: web.Request) -> T:
        """Return the value that ``decode`` returned for the token that this request was let in by.

        That is the token in its ``Authorization`` header, else the first that `admission` was asked about.

        Raises:
            InvalidOption: this guard did not let the request in.
        """
        return self._admitted(request).value

    def websocket(
        self,
        *,
        token: Callable[[web.Request], str | Awaitable[str | None] | None] | None = None,
        **options: Any,
    ) -> Callable[[Callable[[web.Request, web.WebSocketResponse], Awaitable[object]]], Handler]:
        """Decorate a function that serves a WebSocket: a handler that closes it with 4401 when its token is revoked.

        ::

            @guard.websocket(heartbeat=20.0)
            async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
                async for message in websocket:
                    await websocket.send_str(f"{guard.claims(request)['sub']} said {message.data}")

        The function is called when the WebSocket is prepared. On revocation it is cancelled where it waits, so it can
        clean up in ``finally``; then the WebSocket is closed. It stays open when the revocation list goes stale, and
        when the token expires. A request without a valid token is refused before, with an HTTP status; no middleware is
        needed.

        Args:
            token: another source of the token, as browsers cannot set headers for a WebSocket: takes the request and
                returns the token, or ``None``; a plain or a coroutine function. It is called only if there is no bearer
                token in an ``Authorization`` header. A query parameter,
                ``lambda request: request.query.get("token")``, ends up in the access logs of servers and proxies; a
                subprotocol does not.
            options: passed to `web.WebSocketResponse`.
        """
        if token is not None:
            function("token", token)

        def decorate(serve: Callable[[web.Request, web.WebSocketResponse], Awaitable[object]]) -> Handler:
            function("serve", serve)

            @functools.wraps(serve)
            async def handler(request: web.Request) -> web.StreamResponse:
                try:
                    authorization = request.headers.getall("Authorization", ())
                    mine = self._admissions(request)
                    elsewhere = await self._token_from(token, request, authorization=authorization, admissions=mine)
                    admission = await self.admission(request, token=elsewhere)
                except Refused as refused:
                    return _response(refused)
                websocket = web.WebSocketResponse(**options)
                await websocket.prepare(request)
                try:
                    async with (
                        OverdueClose(lambda: _close(request, websocket)) as overdue,
                        self.revocations.watch(admission.claims, overdue.start, cancel=True),
                    ):
                        await serve(request, websocket)
                except RevokedTokenError:
                    await _close(request, websocket)
                return websocket

            setattr(handler, _GUARD, self)  # the middleware does not check these requests again
            return handler

        return decorate

    def until_revoked(self, request: web.Request, items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
        """Yield items until they end or the token is revoked: for server-sent events and other streaming responses.

        ::

            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            async for tick in guard.until_revoked(request, ticks()):
                await response.write(tick)
            return response

        aiohttp does not tell a handler that its client is gone before it writes, unless it is run with
        ``handler_cancellation=True``: yield an item at regular intervals.

        Raises:
            InvalidOption: this guard did not let the request in.
        """
        claims = self._admitted(request).claims
        return until_revoked(self.revocations, claims, items, close=lambda: _abort(request))

    def _is_exempt(self, request: web.Request) -> bool:
        handler: Any = request.match_info.handler
        if _marks(handler).get(_GUARD) is self or _is_public(handler):
            return True
        return _is_view(handler) and _is_public(getattr(handler, request.method.lower(), None))

    def _is_response(self, error: Exception) -> bool:
        return isinstance(error, web.HTTPException) and error.status >= 300

    def _admitted(self, request: web.Request) -> Admission[T]:
        admission = self._admissions(request).own
        if admission is None:
            raise InvalidOption("request", "was not let in by this guard: it is public, or the middleware is missing")
        return admission


def _marks(handler: Any) -> dict[str, Any]:
    """Return the attributes of a handler, without those that a view inherits."""
    return getattr(handler, "__dict__", {})


def _is_public(handler: Any) -> bool:
    while _marks(handler).get(_PUBLIC) is not True:
        if not isinstance(handler, functools.partial):
            return False
        handler = handler.func
    return True


def _is_view(handler: Any) -> bool:
    return isinstance(handler, type) and issubclass(handler, web.View)


def _is_preflight(request: web.Request) -> bool:
    """Return whether a request is a CORS preflight (Fetch Standard §3.2.2) that goes to what handles such requests.

    A handler for every method is none of these: it may do for OPTIONS what it does for others.
    """
    headers = request.headers
    if request.method != "OPTIONS" or "Origin" not in headers or "Access-Control-Request-Method" not in headers:
        return False
    info = request.match_info
    if info.http_exception is not None or info.route.method == "OPTIONS":
        return True
    return _is_view(info.handler) and hasattr(info.handler, "options")


async def _close(request: web.Request, websocket: web.WebSocketResponse) -> None:
    refused = Refused("revoked_token")
    try:
        async with timeout(_CLOSE_TIMEOUT):
            await websocket.close(code=refused.close_code, message=refused.code.encode())
    except TimeoutError:
        await _abort(request)


async def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _response(refused: Refused) -> web.Response:
    return web.json_response(refused.body, status=refused.status, headers=refused.headers)


def lifespan(*resources: AbstractAsyncContextManager[object]) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a cleanup context that opens resources when the application starts, in order, and closes them in reverse.

    ::

        app.cleanup_ctx.append(lifespan(revocations, publisher))

    If one cannot be opened, those before it are closed and the application does not start. A `Subscriber` that fails
    later ends `web.run_app` with its error. Handlers find resources in the application, typed:
    ``request.app[PUBLISHER]``.

    Args:
        resources: `RevocationList`, `Publisher`, `Subscriber`, or any other asynchronous context manager.

    Raises:
        InvalidOption: a resource is not an asynchronous context manager.
    """
    for resource in resources:
        if not isinstance(resource, AbstractAsyncContextManager):
            raise InvalidOption("resources", f"must be asynchronous context managers, not {type(resource).__name__}")

    async def run(app: web.Application) -> AsyncIterator[None]:
        app[_RESOURCES] = resources
        is_open = False
        try:
            async with AsyncExitStack() as stack:
                for resource in resources:
                    await stack.enter_async_context(resource)
                    for key, kind in zip(_KEYS, _KINDS, strict=True):
                        if isinstance(resource, kind) and key not in app:
                            app[key] = resource
                is_open = True
                yield
        except Exception as error:
            if is_open:  # else the server says that it cannot start
                report_end(error)
            raise

    return run


def readiness_handler(*lists: RevocationList | Subscriber) -> Handler:
    """Return a handler: 200 if every revocation list is fresh, else 503; the body says which is not.

    It is 503, too, if a `Subscriber` that is passed does not receive events, or one that `lifespan` opened has failed.
    It needs no token and discloses no secrets.

    Raises:
        InvalidOption: ``lists`` is empty, or contains something else.
    """
    readiness_of(*lists)

    @public
    async def ready(request: web.Request) -> web.Response:
        status, body = readiness_of(*lists, resources=request.config_dict.get(_RESOURCES, ()))
        return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

    return ready
