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

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from jwt_events._internal.callbacks import callback
from jwt_events._internal.cancellation import timeout
from jwt_events.errors import InvalidOption, RevokedTokenError
from jwt_events.guard import Admission, Guard, Item, OverdueClose, Refused, T, readiness_of, report_end, until_revoked
from jwt_events.revocation import RevocationList
from jwt_events.subscriber import Subscriber

try:
    from fastapi import APIRouter, HTTPException, WebSocketException
    from fastapi.openapi.models import HTTPBearer
    from fastapi.responses import JSONResponse
    from fastapi.security.base import SecurityBase
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request
    from starlette.types import Lifespan
    from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
except ModuleNotFoundError as _error:
    raise ImportError("jwt_events.fastapi needs FastAPI: pip install 'jwt_events[fastapi]'") from _error

__all__ = ["BearerGuard", "Refused", "WebSocketGuard", "lifespan", "readiness_router"]

App = TypeVar("App")

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
        """Let a request in, or raise the exception that FastAPI turns into a refusal."""
        return (await self.admission(connection)).value

    async def admission(self, connection: HTTPConnection, *, token: str | None = None) -> Admission[T]:
        """Let a request in, or raise; further calls for the same request return the same admission.

        Args:
            connection: the request, or the WebSocket.
            token: a token that did not come in the ``Authorization`` header; ``None`` looks into the header.

        Raises:
            HTTPException: the request is not let in.
            WebSocketException: the same, where the server lacks the extension for an HTTP response.
        """
        admissions = _admissions(connection)
        if (known := admissions.get(self)) is not None:
            return known
        try:
            if token is None:
                admission = await self.admit(connection.headers.getlist("authorization"))
            else:
                admission = await self.admit_token(token)
        except Refused as refused:
            raise _exception(connection, refused) from None
        admissions[self] = admission
        return admission

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
        admission = _admissions(connection).get(self)
        if admission is None:
            raise InvalidOption("connection", "was not let in by this guard: let the endpoint depend on it")
        return until_revoked(self.revocations, admission.claims, items, close=_closing_response(connection))


def _closing_response(connection: HTTPConnection) -> Callable[[], Awaitable[None]] | None:
    """Return a function that ends the response to a request; ``None`` for a connection that cannot send."""
    send = getattr(connection, "_send", None)  # Starlette passes it to the response only
    if send is None:
        return None

    async def close() -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return close


def _admissions(connection: HTTPConnection) -> dict[Any, Admission[Any]]:
    """Return the admissions of this request, by guard; they live as long as the request."""
    admissions: dict[Any, Admission[Any]] = connection.scope.setdefault("jwt_events.admissions", {})
    return admissions


def _exception(connection: HTTPConnection, refused: Refused) -> HTTPException | WebSocketException:
    is_websocket = connection.scope["type"] == "websocket"
    if is_websocket and "websocket.http.response" not in (connection.scope.get("extensions") or {}):
        return WebSocketException(refused.close_code, refused.code)
    return HTTPException(refused.status, refused.body["detail"], dict(refused.headers))


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
            returns the token, or ``None``. It is called only if there is no ``Authorization`` header. A query
            parameter, ``lambda websocket: websocket.query_params.get("token")``, ends up in the access logs of servers
            and proxies; a subprotocol does not.
    """

    def __init__(self, guard: BearerGuard[T], *, token: Callable[[WebSocket], str | None] | None = None) -> None:
        if not isinstance(guard, BearerGuard):
            raise InvalidOption("guard", f"must be a BearerGuard, not {type(guard).__name__}")
        self._guard = guard
        self._token = None if token is None else callback("token", token)

    async def __call__(self, websocket: WebSocket) -> AsyncIterator[T]:
        """Let a WebSocket in for as long as its token is not revoked."""
        token = None
        if self._token is not None and "authorization" not in websocket.headers:
            token = self._token(websocket)
        admission = await self._guard.admission(websocket, token=token)
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
            raise _exception(websocket, refused)
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

    return router
