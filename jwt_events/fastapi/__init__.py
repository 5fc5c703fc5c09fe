"""The guard for FastAPI: dependencies, WebSockets that close on revocation, lifespan, readiness.

::

    revocations = RevocationList(RedisStream(url))
    guard = BearerGuard(revocations, decode)  # decode: the token -> its claims, or an error
    Claims = Annotated[Mapping[str, Any], Depends(guard)]

    app = FastAPI(lifespan=lifespan(revocations))
    app.include_router(readiness_router(revocations))

    @app.get("/me")
    async def me(claims: Claims) -> str:
        return claims["sub"]
"""

# Annotations are not postponed here: FastAPI could not resolve those of an object that is called as a dependency.

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast, overload

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
    OpenConnection,
    OptionalGuardOptions,
    OptionalModelOptions,
    Refused,
    Reporting,
    T_co,
    V,
    all_of,
    check_resources,
    is_refusal,
    opened,
    readiness_of,
    requirement_of,
)
from jwt_events.revocation import RevocationList

try:
    from fastapi import APIRouter
    from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
    from fastapi.openapi.models import SecurityBase as SecurityScheme
    from fastapi.responses import JSONResponse
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.requests import HTTPConnection, Request
    from starlette.types import Lifespan
    from starlette.websockets import WebSocket, WebSocketState

    from jwt_events.fastapi._dependants import check_scopes, dependencies, is_overridden
    from jwt_events.fastapi._responses import close_websocket, closing_response, refusal
    from jwt_events.fastapi._signals import PUBLIC, global_revocation_router, logout_router, set_router
except ModuleNotFoundError as _error:
    raise ImportError("jwt_events.fastapi needs FastAPI; get it from a clone: pip install '.[fastapi]'") from _error

__all__ = [
    "BearerGuard",
    "Refused",
    "WebSocketGuard",
    "global_revocation_router",
    "lifespan",
    "logout_router",
    "readiness_router",
    "set_router",
]

App = TypeVar("App")

_NO_SCOPES = SecurityScopes()


class BearerGuard(Guard[T_co], SecurityBase):
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

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: "BearerGuard[M]",
            revocations: RevocationList,
            decode: Callable[[str], M | Awaitable[M | None] | None],
            **options: Unpack[GuardOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "BearerGuard[V]",
            revocations: RevocationList,
            decode: Callable[[str], Awaitable[V | None]],
            **options: Unpack[ModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: "BearerGuard[V]",
            revocations: RevocationList,
            decode: Callable[[str], V | None],
            **options: Unpack[ModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: "BearerGuard[M | None]",
            revocations: RevocationList,
            decode: Callable[[str], M | Awaitable[M | None] | None],
            **options: Unpack[OptionalGuardOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "BearerGuard[V | None]",
            revocations: RevocationList,
            decode: Callable[[str], Awaitable[V | None]],
            **options: Unpack[OptionalModelOptions[V]],
        ) -> None: ...
        @overload
        def __init__(
            self: "BearerGuard[V | None]",
            revocations: RevocationList,
            decode: Callable[[str], V | None],
            **options: Unpack[OptionalModelOptions[V]],
        ) -> None: ...

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

    @property
    def model(self) -> SecurityScheme:  # type: ignore[override]  # it depends on the options
        """The scheme for the documentation page."""
        if self._source.header == "authorization":
            return HTTPBearer(bearerFormat="JWT")
        return APIKey.model_validate({"in": APIKeyIn.header, "name": self._source.header})

    @property
    def scheme_name(self) -> str:  # type: ignore[override]  # it depends on the options
        """The name of the scheme there."""
        return "Bearer" if self._source.header == "authorization" else self._source.header

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes = _NO_SCOPES) -> T_co:
        """Let a request in, or raise the exception that FastAPI turns into a refusal.

        The token must grant the scopes of ``Security(guard, scopes=[…])``, of the endpoint and of all that contains the
        guard there. As a dependency of a whole application it takes the token of a WebSocket from where the
        `WebSocketGuard` of that route finds it, and lets requests to `readiness_router` in without one.
        """
        if getattr(connection.scope.get("endpoint"), PUBLIC, False) is True:
            return cast("T_co", None)
        source = None
        for dependency in dependencies(connection) if connection.scope["type"] == "websocket" else ():
            if isinstance(dependency.call, WebSocketGuard) and dependency.call._guard is self:  # noqa: SLF001 - of this module
                source = dependency.call._token  # noqa: SLF001 - of this module
        return (await self._admit_from(connection, source, security_scopes.scopes)).value

    async def _admit_from(
        self, connection: HTTPConnection, source: Callable[[WebSocket], object] | None, scopes: Sequence[str]
    ) -> Admission[T_co]:
        """Let a connection in by the token in its headers, or from another source, or raise as `admission` does."""
        values_of = connection.headers.getlist
        try:
            token = await self._token_from(
                source, connection, values_of=values_of, admissions=self._admissions(connection)
            )
        except Exception as refused:  # noqa: BLE001 - all that it raises are refusals
            error = refusal(connection, refused)
        else:
            return await self.admission(connection, token=token, scopes=scopes)
        raise error

    async def admission(
        self, connection: HTTPConnection, *, token: str | None = None, scopes: Sequence[str] = ()
    ) -> Admission[T_co]:
        """Let a request in, or raise. Called again for the same token, it returns the same, after checking it again.

        Again means: whether it was revoked and whether it has expired, and on a WebSocket everything.

        Args:
            connection: the request, or the WebSocket.
            token: a token that did not come in the ``Authorization`` header; ``None`` looks into the header, so make
                sure that a second token is there. Each token has an admission of its own.
            scopes: what the token must grant, in its claim ``scope`` or ``scp``.

        Raises:
            InvalidOption: ``scopes`` has something that no token can grant.
            HTTPException: the request is not let in.
            WebSocketException: the same, where the server lacks the extension for an HTTP response; both in one on a
                WebSocket that was accepted, which it closes.
        """
        requirement = requirement_of(scopes)
        is_accepted = getattr(connection, "application_state", None) is WebSocketState.CONNECTED
        values_of = connection.headers.getlist
        try:
            known = await self._admit_again(self._admissions(connection), values_of, token, verify=is_accepted)
            return requirement.met_by(known, realm=self._realm)
        except Exception as refused:  # noqa: BLE001 - all that it raises are refusals
            error = refusal(connection, refused)
        raise error

    def _admissions(self, connection: HTTPConnection) -> Admissions[T_co]:
        return Admissions.of(self, connection.scope)

    def _open(self, websocket: WebSocket, admission: Admission[T_co], scopes: Sequence[str]) -> OpenConnection[T_co]:
        try:
            return self._connections.open(self._admissions(websocket), requirement_of(scopes), admission)
        except Refused as refused:
            error = refusal(websocket, refused)
        raise error

    async def renew(self, websocket: WebSocket, token: str) -> Admission[T_co]:
        """Go on with a new token on a WebSocket that a `WebSocketGuard` let in, before the one in use expires.

        ::

            async for text in websocket.iter_text():
                if text.startswith("token "):
                    await guard.renew(websocket, text.removeprefix("token "))

        It must be valid, live, about the same subject (user, client, issuer), not older, and grant the same scopes.
        From then on it decides how long the WebSocket stays open. Cancelling is safe.

        Returns:
            The admission of the new token.

        Raises:
            Refused: it is not accepted, and the one before stays in use. Left unhandled it closes the WebSocket.
            InvalidOption: no `WebSocketGuard` of this guard let the WebSocket in, or it has no token.
        """
        return await self._connections.renew(self._admissions(websocket), token)

    def until_revoked(self, connection: HTTPConnection, items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
        """Yield items until they end, or the token is revoked or expires: for server-sent events and other streams.

        ::

            @app.get("/events")
            async def events(request: Request, claims: Claims) -> StreamingResponse:
                return StreamingResponse(guard.until_revoked(request, ticks()), media_type="text/event-stream")

        Then the response ends as if the items had ended; a client that reconnects is refused with 401.

        Raises:
            InvalidOption: the endpoint does not depend on this guard.
        """
        admission = self._admissions(connection).own
        if admission is not None:
            return self._connections.stream(admission, items, closing_response(connection))
        if is_overridden(connection, self._is_in):
            return all_of(items)
        raise InvalidOption("connection", "was not let in by this guard: let the endpoint depend on it")

    def _is_in(self, call: object) -> bool:
        return call is self or (isinstance(call, WebSocketGuard) and call._guard is self)  # noqa: SLF001 - of this module

    def _is_response(self, error: Exception) -> bool:
        return isinstance(error, StarletteHTTPException) and is_refusal(error.status_code)


class WebSocketGuard(Generic[T_co]):
    """A dependency that lets WebSockets in, and closes them with 4401 the moment their token is revoked or expires.

    ::

        LiveClaims = Annotated[Mapping[str, Any], Depends(WebSocketGuard(guard))]

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: LiveClaims) -> None:
            await websocket.accept()
            ...

    Then the endpoint is cancelled where it waits, so it can clean up in ``finally``, and the WebSocket is closed; the
    reason is ``revoked_token`` or ``expired_token``. It stays open when the revocation list goes stale. `renew` takes a
    new token. Scopes are passed as to the guard: ``Security(WebSocketGuard(guard), scopes=[…])``. An endpoint for HTTP
    that depends on it, as one of a whole application or router, is guarded as by the guard itself.

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
        guard: BearerGuard[T_co],
        *,
        token: Callable[[WebSocket], str | Awaitable[str | None] | None] | None = None,
    ) -> None:
        if not isinstance(guard, BearerGuard):
            raise InvalidOption("guard", f"must be a BearerGuard, not {type(guard).__name__}")
        self._guard = guard
        self._token = None if token is None else function("token", token)

    async def __call__(
        self, connection: HTTPConnection, security_scopes: SecurityScopes = _NO_SCOPES
    ) -> AsyncIterator[T_co]:
        """Let a WebSocket in for as long as its token is not revoked; any other request as the guard does."""
        if connection.scope["type"] != "websocket":
            yield await self._guard(connection, security_scopes)
            return
        websocket, scopes = cast("WebSocket", connection), security_scopes.scopes
        admission = await self._guard._admit_from(websocket, self._token, scopes)  # noqa: SLF001 - of this module
        entered = self._guard._open(websocket, admission, scopes)  # noqa: SLF001 - of this module
        async with entered.serving(lambda refused: close_websocket(websocket, refused)):
            yield admission.value

    async def renew(self, websocket: WebSocket, token: str) -> Admission[T_co]:
        """Go on with a new token; see `BearerGuard.renew`."""
        return await self._guard.renew(websocket, token)


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
        InvalidOption: a resource is not an asynchronous context manager; or, when the application starts, an endpoint
            requires a scope of a guard that no token can grant.
    """
    check_resources(resources)

    @asynccontextmanager
    async def run(app: App) -> AsyncIterator[Any]:
        if isinstance(app, Starlette):
            app.state.jwt_events_resources = resources
        check_scopes(app, lambda call: isinstance(call, BearerGuard | WebSocketGuard))
        async with opened(resources, then=None if then is None else then(app)) as state:
            yield state

    return run


def readiness_router(*lists: RevocationList | Reporting, path: str = "/ready") -> APIRouter:
    """Return a router with one route: 200 if every revocation list is fresh, else 503; the body says which is not.

    It is 503, too, if a `Subscriber` or `SetPoller` that is passed is not live, or a `Subscriber` that `lifespan`
    opened has failed. It needs no token and discloses no secrets. It is left out of the documentation page.

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

    setattr(ready, PUBLIC, True)
    return router
