"""The guard for FastAPI: dependencies, WebSockets that close on revocation, lifespan, readiness.

::

    revocations = RevocationList(RedisStream(url, retention=timedelta(hours=12)))
    guard = BearerGuard(revocations, decode)  # decode: the token -> its claims, or an error
    Claims = Annotated[Mapping[str, Any], Depends(guard)]

    app = FastAPI(lifespan=lifespan(revocations))
    app.include_router(readiness_router(revocations))

    @app.get("/me")
    async def me(claims: Claims) -> str:
        return claims["sub"]
"""

# Annotations are not postponed here: FastAPI could not resolve those of an object that is called as a dependency.

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Generic, TypeVar, cast

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
from jwt_events.revocation import RevocationList
from jwt_events.subscriber import Subscriber

try:
    from fastapi import APIRouter, HTTPException, WebSocketException
    from fastapi.dependencies.models import Dependant
    from fastapi.openapi.models import HTTPBearer
    from fastapi.responses import JSONResponse
    from fastapi.security.base import SecurityBase
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.requests import HTTPConnection, Request
    from starlette.types import Lifespan
    from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
except ModuleNotFoundError as _error:
    raise ImportError("jwt_events.fastapi needs FastAPI; get it from a clone: pip install '.[fastapi]'") from _error

__all__ = ["BearerGuard", "Refused", "WebSocketGuard", "lifespan", "readiness_router"]

App = TypeVar("App")

_PUBLIC = "_jwt_events_is_public"  # attribute of an endpoint that needs no token, even if all others do

_CLOSE_TIMEOUT = 5.0  # seconds for a client that does not read to take the close; then the server hangs up


class BearerGuard(Guard[T], SecurityBase):
    """A dependency that lets requests in whose bearer token is valid and not revoked; its value is their claims.

    ::

        guard = BearerGuard(revocations, decode)
        Claims = Annotated[Mapping[str, Any], Depends(guard)]  # or what decode returns

    It works in endpoints, async or not, in routers (``dependencies=[Depends(guard)]``), in other dependencies, and for
    WebSockets, which it checks when they connect; `WebSocketGuard` also closes them on revocation. The documentation
    page shows a lock. Its options are those of `jwt_events.guard.Guard`.

    Other requests are refused by an `HTTPException` with the status and headers of `Refused`, whose ``body`` is what
    FastAPI sends for it. A WebSocket is refused before it is accepted, with the same status, headers and body; if the
    ASGI server lacks the extension for that (``websocket.http.response``; uvicorn and hypercorn have it), by a close,
    which the client sees as 403. Some versions of uvicorn log "ASGI callable returned without completing handshake"
    then, although the client got its response.
    """

    model: HTTPBearer = HTTPBearer(bearerFormat="JWT")
    scheme_name = "Bearer"

    async def __call__(self, connection: HTTPConnection) -> T:
        """Let a request in, or raise the exception that FastAPI turns into a refusal.

        As a dependency of a whole application it takes the token of a WebSocket from where the `WebSocketGuard` of that
        route finds it, and lets requests to `readiness_router` in without one.
        """
        if getattr(connection.scope.get("endpoint"), _PUBLIC, False) is True:
            return cast("T", None)
        source = None
        for dependency in _dependencies(connection) if connection.scope["type"] == "websocket" else ():
            if isinstance(dependency.call, WebSocketGuard) and dependency.call._guard is self:  # noqa: SLF001 - of this module
                source = dependency.call._token  # noqa: SLF001 - of this module
        return (await self._admit_from(connection, source)).value

    async def _admit_from(
        self, connection: HTTPConnection, source: Callable[[WebSocket], object] | None
    ) -> Admission[T]:
        """Let a connection in by the token in its header, or from another source, or raise as `admission` does."""
        authorization = connection.headers.getlist("authorization")
        try:
            token = await self._token_from(
                source, connection, authorization=authorization, admissions=self._admissions(connection)
            )
        except Exception as refused:  # noqa: BLE001 - all that it raises are refusals
            error = _refusal(connection, refused)
        else:
            return await self.admission(connection, token=token)
        raise error

    async def admission(self, connection: HTTPConnection, *, token: str | None = None) -> Admission[T]:
        """Let a request in, or raise. Called again for the same token, it returns the same, after checking it again.

        Again means: whether it was revoked and whether it has expired, and on a WebSocket everything.

        Args:
            connection: the request, or the WebSocket.
            token: a token that did not come in the ``Authorization`` header; ``None`` looks into the header, so make
                sure that a second token is there. Each token has an admission of its own.

        Raises:
            HTTPException: the request is not let in.
            WebSocketException: the same, where the server lacks the extension for an HTTP response.
        """
        authorization = connection.headers.getlist("authorization")
        is_accepted = getattr(connection, "application_state", None) is WebSocketState.CONNECTED
        try:
            return await self._admit_again(self._admissions(connection), authorization, token, verify=is_accepted)
        except Exception as refused:  # noqa: BLE001 - all that it raises are refusals
            error = _refusal(connection, refused)
        raise error

    def _admissions(self, connection: HTTPConnection) -> Admissions[T]:
        """Return the admissions of this request by this guard; they live as long as the request."""
        by_guard: dict[Any, Admissions[T]] = connection.scope.setdefault("jwt_events.admissions", {})
        return by_guard.setdefault(self, Admissions())

    def until_revoked(self, connection: HTTPConnection, items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
        """Yield items until they end or the token is revoked: for server-sent events and other streaming responses.

        ::

            @app.get("/events")
            async def events(request: Request, claims: Claims) -> StreamingResponse:
                return StreamingResponse(guard.until_revoked(request, ticks()), media_type="text/event-stream")

        On revocation the response ends as if the items had ended; a client that reconnects is refused with 401.

        Raises:
            InvalidOption: the endpoint does not depend on this guard.
        """
        admission = self._admissions(connection).own
        if admission is not None:
            return until_revoked(self.revocations, admission.claims, items, close=_closing_response(connection))
        if _is_overridden(self, connection):
            return _all(items)
        raise InvalidOption("connection", "was not let in by this guard: let the endpoint depend on it")

    def _is_response(self, error: Exception) -> bool:
        return isinstance(error, StarletteHTTPException) and error.status_code >= 300


async def _all(items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
    async for item in items:
        yield item


def _closing_response(connection: HTTPConnection) -> Callable[[], Awaitable[None]] | None:
    """Return a function that ends the response to a request; ``None`` for a connection that cannot send."""
    send = getattr(connection, "_send", None)  # Starlette passes it to the response only
    if send is None:
        return None

    async def close() -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return close


def _roots(connection: HTTPConnection) -> Iterator[Dependant]:
    """Yield what the endpoint of a connection depends on, as FastAPI knows it."""
    scope = connection.scope
    included = scope.get("fastapi", {}).get("effective_route_context")  # from FastAPI 0.130 on, of an included router
    for route in (included, scope.get("route")):
        if isinstance(dependant := getattr(route, "dependant", None), Dependant):
            yield dependant


def _dependencies(connection: HTTPConnection) -> Iterator[Dependant]:
    """Yield all dependencies of an endpoint, direct or not."""
    pending = list(_roots(connection))
    while pending:
        dependant = pending.pop()
        yield dependant
        pending.extend(dependant.dependencies)


def _is_overridden(guard: object, connection: HTTPConnection) -> bool:
    """Return whether a test has replaced the guard, or a dependency that contains it (``dependency_overrides``)."""
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", {})
    return any(_is_replaced(guard, root, overrides) for root in _roots(connection))


def _is_replaced(guard: object, dependant: Dependant, overrides: Mapping[Any, Any]) -> bool:
    return any(
        (one.call in overrides and _contains(guard, one)) or _is_replaced(guard, one, overrides)
        for one in dependant.dependencies
    )


def _contains(guard: object, dependant: Dependant) -> bool:
    call = dependant.call
    is_it = call is guard or (isinstance(call, WebSocketGuard) and call._guard is guard)  # noqa: SLF001 - of this module
    return is_it or any(_contains(guard, one) for one in dependant.dependencies)


def _refusal(connection: HTTPConnection, error: Exception) -> Exception:
    """Return the exception that FastAPI makes a refusal of; what ``decode`` raised for itself stays as it is."""
    is_websocket = connection.scope["type"] == "websocket"
    if is_websocket and "websocket.http.response" not in (connection.scope.get("extensions") or {}):
        if isinstance(error, Refused):
            return WebSocketException(error.close_code, error.code)
        if isinstance(error, StarletteHTTPException):
            return WebSocketException(4000 + min(error.status_code, 999))
    if isinstance(error, Refused):
        return HTTPException(error.status, error.body["detail"], dict(error.headers))
    return error


class WebSocketGuard(Generic[T]):
    """A dependency that lets WebSockets in, and closes them with 4401 the moment their token is revoked.

    ::

        LiveClaims = Annotated[Mapping[str, Any], Depends(WebSocketGuard(guard))]

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: LiveClaims) -> None:
            await websocket.accept()
            ...

    On revocation the endpoint is cancelled where it waits, so it can clean up in ``finally``; then the WebSocket is
    closed. It stays open when the revocation list goes stale, and when the token expires.

    Args:
        guard: decides which WebSockets are let in.
        token: another source of the token, as browsers cannot set headers for a WebSocket: takes the WebSocket and
            returns the token, or ``None``; a plain or a coroutine function. It is called only if there is no bearer
            token in an ``Authorization`` header. A query parameter,
            ``lambda websocket: websocket.query_params.get("token")``, ends up in the access logs of servers and
            proxies; a subprotocol does not.
    """

    def __init__(
        self,
        guard: BearerGuard[T],
        *,
        token: Callable[[WebSocket], str | Awaitable[str | None] | None] | None = None,
    ) -> None:
        if not isinstance(guard, BearerGuard):
            raise InvalidOption("guard", f"must be a BearerGuard, not {type(guard).__name__}")
        self._guard = guard
        self._token = None if token is None else function("token", token)

    async def __call__(self, websocket: WebSocket) -> AsyncIterator[T]:
        """Let a WebSocket in for as long as its token is not revoked."""
        admission = await self._guard._admit_from(websocket, self._token)  # noqa: SLF001 - of this module
        try:
            async with (
                OverdueClose(lambda: self._close(websocket)) as overdue,
                self._guard.revocations.watch(admission.claims, overdue.start, cancel=True),
            ):
                yield admission.value
        except RevokedTokenError:
            pass
        else:
            return
        await self._close(websocket)

    async def _close(self, websocket: WebSocket) -> None:
        refused = Refused("revoked_token")
        if websocket.application_state is WebSocketState.CONNECTING:
            raise _refusal(websocket, refused)
        if WebSocketState.DISCONNECTED not in (websocket.application_state, websocket.client_state):
            with suppress(WebSocketDisconnect, TimeoutError):
                async with timeout(_CLOSE_TIMEOUT):
                    await websocket.close(refused.close_code, refused.code)


def lifespan(
    *resources: AbstractAsyncContextManager[object], then: Lifespan[App] | None = None
) -> Callable[[App], AbstractAsyncContextManager[Any]]:
    """Return a lifespan that opens resources before the application starts, in order, and closes them in reverse.

    ::

        app = FastAPI(lifespan=lifespan(revocations, publisher, then=my_own_lifespan))

    If one cannot be opened, those before it are closed and the application does not start. A `Subscriber` that fails
    later ends the lifespan early, which closes the rest, and is logged. uvicorn keeps running without them, so probe
    the readiness (`readiness_router`), which is 503 from then on.

    Args:
        resources: `RevocationList`, `Publisher`, `Subscriber`, or any other asynchronous context manager.
        then: a lifespan to run while they are open; the state that it yields is passed on.

    Raises:
        InvalidOption: a resource is not an asynchronous context manager.
    """
    for resource in resources:
        if not isinstance(resource, AbstractAsyncContextManager):
            raise InvalidOption("resources", f"must be asynchronous context managers, not {type(resource).__name__}")

    @asynccontextmanager
    async def run(app: App) -> AsyncIterator[Any]:
        if isinstance(app, Starlette):
            app.state.jwt_events_resources = resources
        is_open = False
        try:
            async with AsyncExitStack() as stack:
                for resource in resources:
                    await stack.enter_async_context(resource)
                state = None if then is None else await stack.enter_async_context(then(app))
                is_open = True
                yield state
        except Exception as error:
            if is_open:  # else the server says that it cannot start
                report_end(error)
            raise

    return run


def readiness_router(*lists: RevocationList | Subscriber, path: str = "/ready") -> APIRouter:
    """Return a router with one route: 200 if every revocation list is fresh, else 503; the body says which is not.

    It is 503, too, if a `Subscriber` that is passed does not receive events, or one that `lifespan` opened has failed.
    It needs no token and discloses no secrets. It is left out of the documentation page.

    Raises:
        InvalidOption: ``lists`` is empty, or contains something else.
    """
    readiness_of(*lists)
    router = APIRouter()

    @router.get(path, include_in_schema=False)
    async def ready(request: Request) -> JSONResponse:
        resources = getattr(request.app.state, "jwt_events_resources", ())
        status, body = readiness_of(*lists, resources=resources)
        return JSONResponse(body, status, {"Cache-Control": "no-store"})

    setattr(ready, _PUBLIC, True)
    return router
