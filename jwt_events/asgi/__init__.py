"""A guard for everything that speaks ASGI, and endpoints for signals.

::

    app = BearerMiddleware(app, Guard(revocations, decode), public=["/health", "/static/*"])

It needs no framework: Starlette, Litestar, Quart, mounted applications and static files are ASGI applications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jwt_events._internal.describing import describe
from jwt_events._internal.functions import function
from jwt_events.asgi._exchange import Denial, Exchange, refuse
from jwt_events.asgi._signals import global_revocation_router, logout_router, set_router
from jwt_events.asgi._types import App, Receive, Scope, Send
from jwt_events.errors import InvalidOption
from jwt_events.guard import Admission, Admissions, Guard, PublicPaths, Refused, requirement_of

__all__ = ["BearerMiddleware", "global_revocation_router", "logout_router", "set_router"]

# Headers that belong to the body that ``decode`` meant, which is sent as JSON here.
_OF_THE_BODY = frozenset({"content-type", "content-length", "transfer-encoding"})


class BearerMiddleware:
    """Lets requests and WebSockets in whose bearer token is valid and not revoked, to any ASGI application.

    The application finds what ``decode`` returned in ``scope["state"]["claims"]``, which is ``request.state.claims`` in
    Starlette and FastAPI; ``None`` if the path is public or the request anonymous. Others are refused with the status,
    headers and body of `Refused`, a WebSocket before it is accepted. A WebSocket is closed with 4401 the moment its
    token is revoked. A response is cut off then if it goes on, part after part; its first part is sent.

    Preflight requests (CORS) bring no token, and are refused: put the middleware that answers them around this one.

    Args:
        app: the application, or a part of it: what is mounted, static files.
        guard: decides which tokens are let in.
        public: the paths, below where the application is mounted, that need no token: a path is meant exactly, and one
            with ``/*`` at the end means all paths below it. A path that frameworks may read as another one, with
            double slashes, dots or percent-encoded slashes, is never public.
        scopes: what every token must grant, in its claim ``scope`` or ``scp``.

    Raises:
        InvalidOption: an option cannot work.
    """

    def __init__(self, app: App, guard: Guard[Any], *, public: Iterable[str] = (), scopes: Sequence[str] = ()) -> None:
        if not isinstance(guard, Guard):
            raise InvalidOption("guard", f"must be a Guard, not {type(guard).__name__}")
        self._app: App = function("app", app)
        self._guard = guard
        self._public = PublicPaths(public)
        self._requirement = requirement_of(scopes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. The lifespan passes."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise RuntimeError(f"only HTTP and WebSockets are guarded here, not {kind}")
        admission: Admission[Any] | Denial | None = None
        if not self._public.cover(scope):
            admission = await self._admit(scope)
        if isinstance(admission, Denial):
            if kind == "websocket":
                await receive()  # the request to connect
            await refuse(scope, send, admission)
            return
        scope.setdefault("state", {})["claims"] = None if admission is None else admission.value
        if admission is None or admission.is_anonymous:
            await self._app(scope, receive, send)
        else:
            connections = self._guard._connections  # noqa: SLF001 - for the framework modules of this package
            await Exchange(scope, receive, send).run(self._app, connections, admission)

    async def _admit(self, scope: Scope) -> Admission[Any] | Denial:
        guard = self._guard
        values_of = _headers_of(scope)
        is_websocket = scope["type"] == "websocket"
        try:
            admissions: Admissions[Any] = Admissions.of(guard, scope)
            known = await guard._admit_again(  # noqa: SLF001 - for the framework modules of this package
                admissions, values_of, None, verify=is_websocket
            )
            return self._requirement.met_by(known, realm=guard._realm)  # noqa: SLF001 - the same
        except Refused as refused:
            if refused.code == "missing_token" and _is_preflight(scope, values_of):
                guard._failures.tell(  # noqa: SLF001 - the same
                    "WARNING",
                    "preflight request refused, it brings no token",
                    problem="put the middleware for CORS around BearerMiddleware",
                )
            return Denial.of(refused)
        except Exception as error:  # noqa: BLE001 - a response of the framework that the guard is for
            denial = _denial_by(error)
            if denial.is_sendable:
                return denial
            problem = describe(error)
            guard._failures.tell(  # noqa: SLF001 - the same
                "ERROR", "token refused, the response of decode cannot be sent", error=problem
            )
            return Denial.of(Refused("invalid_token", realm=guard._realm))  # noqa: SLF001 - the same


def _headers_of(scope: Scope) -> Callable[[str], Sequence[str]]:
    """Return a function that returns the values of the headers with a name."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value.decode("latin-1"))
    return lambda name: found.get(name.lower().encode("latin-1"), ())


def _is_preflight(scope: Scope, values_of: Callable[[str], Sequence[str]]) -> bool:
    is_cors = values_of("origin") and values_of("access-control-request-method")
    return scope.get("method") == "OPTIONS" and bool(is_cors)


def _denial_by(error: Exception) -> Denial:
    """Return the response that ``decode`` raised: an `HTTPException` of Starlette, FastAPI or aiohttp."""
    status = getattr(error, "status_code", getattr(error, "status", 401))
    detail = getattr(error, "detail", getattr(error, "text", None))
    headers = getattr(error, "headers", None)
    plain = {name: value for name, value in dict(headers or {}).items() if name.lower() not in _OF_THE_BODY}
    return Denial(status, plain, {"detail": detail}, 4000 + min(status, 999), "refused")
