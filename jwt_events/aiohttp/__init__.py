"""The guard for aiohttp servers: a middleware, WebSockets that close on revocation, resources, readiness.

::

    revocations = RevocationList(RedisStream(url))
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
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Unpack, overload

from jwt_events._internal.cancellation import timeout
from jwt_events._internal.functions import function
from jwt_events.errors import InvalidOption
from jwt_events.guard import (
    Admission,
    Admissions,
    Guard,
    GuardOptions,
    Item,
    M,
    ModelOptions,
    OptionalGuardOptions,
    OptionalModelOptions,
    Refused,
    T_co,
    V,
    is_refusal,
    requirement_of,
)
from jwt_events.revocation import RevocationList

try:
    from aiohttp import web

    from jwt_events.aiohttp._handlers import (
        SCOPES,
        AnyHandler,
        Handler,
        OwnCheck,
        check_of_websocket,
        checked,
        is_exempt,
        is_preflight,
        is_websocket,
        marks,
        own_check,
        public,
        says_so,
    )
    from jwt_events.aiohttp._lifespan import PUBLISHER, REVOCATIONS, SUBSCRIBER, lifespan, readiness_handler
    from jwt_events.aiohttp._signals import global_revocation_router, logout_router, set_router
except ModuleNotFoundError as _error:
    raise ImportError("jwt_events.aiohttp needs aiohttp; get it from a clone: pip install '.[aiohttp]'") from _error

__all__ = [
    "PUBLISHER",
    "REVOCATIONS",
    "SUBSCRIBER",
    "BearerGuard",
    "Refused",
    "global_revocation_router",
    "lifespan",
    "logout_router",
    "public",
    "readiness_handler",
    "set_router",
]

# Request key of the admissions, by guard; before aiohttp 3.14 a request accepts only text as a key.
_ADMISSIONS: Any = web.RequestKey("admissions", dict) if hasattr(web, "RequestKey") else "jwt_events.admissions"
_CONNECTIONS: Any = web.ResponseKey("admissions", dict) if hasattr(web, "ResponseKey") else "jwt_events.admissions"

_CLOSE_TIMEOUT = 5.0  # seconds for a client that does not read to take the close; then its connection is cut


class BearerGuard(Guard[T_co]):
    """Lets requests in whose bearer token is valid and not revoked.

    Its options are those of `jwt_events.guard.Guard`. Others are refused with status, headers and body of `Refused`.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: BearerGuard[M],
            revocations: RevocationList,
            decode: Callable[[str], M | Awaitable[M | None] | None],
            **options: Unpack[GuardOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: BearerGuard[V],
            revocations: RevocationList,
            decode: Callable[[str], Awaitable[V | None]],
            **options: Unpack[ModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: BearerGuard[V],
            revocations: RevocationList,
            decode: Callable[[str], V | None],
            **options: Unpack[ModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: BearerGuard[M | None],
            revocations: RevocationList,
            decode: Callable[[str], M | Awaitable[M | None] | None],
            **options: Unpack[OptionalGuardOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: BearerGuard[V | None],
            revocations: RevocationList,
            decode: Callable[[str], Awaitable[V | None]],
            **options: Unpack[OptionalModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: BearerGuard[V | None],
            revocations: RevocationList,
            decode: Callable[[str], V | None],
            **options: Unpack[OptionalModelOptions[V]],
        ) -> None: ...

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

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
            exempt = is_exempt(request, self) or is_preflight(request)
            if not exempt and not (is_public is not None and await says_so(is_public, request, self._failures.tell)):
                try:
                    await _admit(self, request, check_of_websocket(request, self))
                except Refused as refused:
                    return _response(refused)
            return await _respond(request, handler)

        return guarded

    async def admission(
        self, request: web.Request, *, token: str | None = None, scopes: Sequence[str] = ()
    ) -> Admission[T_co]:
        """Let a request in, or raise. Called again for the same token, it returns the same, after checking it again.

        Again means: whether it was revoked and whether it has expired, and on a WebSocket everything.

        Args:
            request: the request.
            token: a token that did not come in the ``Authorization`` header; ``None`` looks into the header, so make
                sure that a second token is there. Each token has an admission of its own.
            scopes: what the token must grant, in its claim ``scope`` or ``scp``.

        Raises:
            InvalidOption: ``scopes`` has something that no token can grant.
            Refused: the request is not let in.
            HTTPException: the same, in the words of ``decode``.
        """
        requirement = requirement_of(scopes)
        values_of, verify = _headers_of(request), is_websocket(request)
        known = await self._admit_again(self._admissions(request), values_of, token, verify=verify)
        return requirement.met_by(known, realm=self._realm)

    def _admissions(self, request: web.Request) -> Admissions[T_co]:
        return Admissions.of(self, request, _ADMISSIONS)

    def requires(self, *scopes: str) -> Callable[[AnyHandler], AnyHandler]:
        """Decorate a handler: its requests need a token that grants scopes, in its claim ``scope`` or ``scp``.

        ::

            @guard.requires("orders:write")
            async def cancel(request: web.Request) -> web.Response: ...

        A handler is a function, a method of an object or of a view, or what `websocket` returned. Without a token its
        requests get 401, also if the guard is optional or the handler `public`; with one that lacks a scope, 403 and
        ``insufficient_scope``. No middleware is needed.

        Raises:
            InvalidOption: there is no scope, or one that no token can grant; or what is decorated is no handler.
        """
        requirement = requirement_of(scopes)
        if not requirement:
            raise InvalidOption("scopes", "must be one scope or several")

        def decorate(handler: AnyHandler) -> AnyHandler:
            own = own_check(handler, self)
            checks_itself = own is not None and own.handler is handler

            async def check(request: web.Request, *, is_open: bool) -> web.StreamResponse | None:
                if is_open:
                    requirement.met_by(self._admitted(request), realm=self._realm)
                    return None
                mine = self._admissions(request)
                mine.required = requirement_of((*mine.required.scopes, *scopes))
                try:
                    if not checks_itself:
                        await _admit(self, request, own, scopes)
                except Refused as refused:
                    return _response(refused)
                return None

            scoped = checked(handler, check)
            setattr(scoped, SCOPES, marks(handler).get(SCOPES, {}) | {self: (*_scopes_of(self, handler), *scopes)})
            return scoped

        return decorate

    def claims(self, request: web.Request) -> T_co:
        """Return the value that ``decode`` returned for the token that this request was let in by.

        That is the token in its ``Authorization`` header, else the first that `admission` was asked about.

        Raises:
            InvalidOption: this guard did not let the request in.
        """
        return self._admitted(request).value

    def websocket(
        self, *, token: Callable[[web.Request], str | Awaitable[str | None] | None] | None = None, **options: Any
    ) -> Callable[[Callable[[web.Request, web.WebSocketResponse], Awaitable[object]]], Handler]:
        """Decorate a function that serves a WebSocket: a handler that closes it with 4401 when its token ends.

        ::

            @guard.websocket(heartbeat=20.0)
            async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
                async for message in websocket:
                    await websocket.send_str(f"{guard.claims(request)['sub']} said {message.data}")

        The function is called when the WebSocket is prepared. When the token is revoked or expires it is cancelled
        where it waits, so it can clean up in ``finally``; then the WebSocket is closed, for the reason
        ``revoked_token`` or ``expired_token``. It stays open when the revocation list goes stale. `renew` takes a new
        token. A request without a valid token is refused before, with an HTTP status; no middleware is needed.

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
            own = OwnCheck(self, token, serve)

            @functools.wraps(serve)
            async def handler(request: web.Request) -> web.StreamResponse:
                try:
                    mine = self._admissions(request)
                    scopes = (*mine.required.scopes, *_scopes_of(self, serve))
                    admission = await _admit(self, request, own, scopes)
                    connection = self._connections.open(mine, requirement_of(scopes), admission)
                except Refused as refused:
                    return _response(refused)
                websocket = web.WebSocketResponse(**options)
                await websocket.prepare(request)
                websocket[_CONNECTIONS] = {self: mine}
                with suppress(Refused):  # before the handler was called
                    async with connection.serving(lambda refused: _close(request, websocket, refused)):
                        await _serve(serve, request, websocket)
                return websocket

            own.mark(handler)  # the middleware does not check these requests again
            return handler

        return decorate

    async def renew(self, websocket: web.WebSocketResponse, token: str) -> Admission[T_co]:
        """Go on with a new token on a WebSocket that `websocket` let in, before the one in use expires.

        It must be valid, live, about the same user, client and issuer, not older, and grant the same scopes; from then
        on `claims` returns its claims.

        Raises:
            Refused: it is not accepted, and the one before stays in use. Left unhandled it closes the WebSocket.
            InvalidOption: it is not a WebSocket of this guard, or it has no token.
        """
        return await self._connections.renew(Admissions.of(self, websocket, _CONNECTIONS), token)

    def until_revoked(self, request: web.Request, items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
        """Yield items until they end, or the token is revoked or expires: for server-sent events and other streams.

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
        return self._connections.stream(self._admitted(request), items, lambda: _abort(request))

    def _is_response(self, error: Exception) -> bool:
        return isinstance(error, web.HTTPException) and is_refusal(error.status)

    def _admitted(self, request: web.Request) -> Admission[T_co]:
        admission = self._admissions(request).own
        if admission is None:
            raise InvalidOption("request", "was not let in by this guard: it is public, or the middleware is missing")
        return admission


async def _admit(
    guard: BearerGuard[T_co], request: web.Request, own: OwnCheck | None, scopes: Sequence[str] = ()
) -> Admission[T_co]:
    """Let a request in by the token that it brings in its headers, or where its handler finds it."""
    token = await guard._token_from(  # noqa: SLF001 - of this module
        None if own is None else own.source,
        request,
        values_of=_headers_of(request),
        admissions=guard._admissions(request),  # noqa: SLF001 - of this module
    )
    return await guard.admission(request, token=token, scopes=scopes)


def _headers_of(request: web.Request) -> Callable[[str], Sequence[str]]:
    return lambda name: request.headers.getall(name, ())


def _scopes_of(guard: object, handler: object) -> tuple[str, ...]:
    """Return the scopes that a handler requires by decorators of a guard."""
    scopes: tuple[str, ...] = marks(handler).get(SCOPES, {}).get(guard, ())
    return scopes


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Call a handler. What it is refused by the guard is its response, unless another one has begun."""
    try:
        return await handler(request)
    except Refused as refused:
        if request.writer.output_size:
            raise
        return _response(refused)


async def _serve(
    serve: Callable[..., Awaitable[object]], request: web.Request, websocket: web.WebSocketResponse
) -> None:
    try:
        await serve(request, websocket)
    except web.HTTPException as response:  # it cannot be sent once a WebSocket is open
        await websocket.close(code=4000 + min(response.status, 999), message=b"refused")


async def _close(request: web.Request, websocket: web.WebSocketResponse, refused: Refused) -> None:
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
