"""What a handler of aiohttp is, and what is marked on it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from aiohttp import web

from jwt_events._internal.describing import describe
from jwt_events._internal.functions import awaited, called, function, is_coroutine_function, truth
from jwt_events.errors import InvalidOption

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., object])

# Attributes of handlers: whether they need no token, how they check it themselves, and which scopes a guard requires.
_PUBLIC = "_jwt_events_is_public"
_CHECK = "_jwt_events_check"
SCOPES = "_jwt_events_scopes"


def public(handler: AnyHandler) -> AnyHandler:
    """Return a public handler that does the same: guards let its requests in unchecked.

    A handler is a function or method, a `web.View`, or a method of a view, which alone is public then. What is passed
    stays as it is, for other routes: ``public(health)`` and ``public(self.health)`` are registered, and a decorator for
    routes stands above this one.

    Raises:
        InvalidOption: it is not callable.
    """
    if isinstance(handler, staticmethod | classmethod):
        return cast("AnyHandler", type(handler)(public(handler.__func__)))
    same = _another(function("handler", handler))
    setattr(same, _PUBLIC, True)
    return cast("AnyHandler", same)


def _another(handler: Any) -> Any:
    """Return another handler that does the same, to mark it alone."""
    if isinstance(handler, type):
        names = {name: getattr(handler, name) for name in ("__module__", "__qualname__", "__doc__")}
        return type(handler)(handler.__name__, (handler,), names)
    if not (inspect.isfunction(handler) and is_coroutine_function(handler)):
        return functools.partial(handler)

    @functools.wraps(handler)
    async def same(*arguments: Any) -> Any:
        return await handler(*arguments)

    return same


def marks(handler: Any) -> dict[str, Any]:
    """Return the attributes of a handler, without those that a view inherits."""
    return getattr(handler, "__dict__", {})


def is_marked_public(handler: Any) -> bool:
    while marks(handler).get(_PUBLIC) is not True:
        if not isinstance(handler, functools.partial):
            return False
        handler = handler.func
    return True


class OwnCheck(NamedTuple):
    """A handler that lets requests in by a guard, and finds their tokens itself: one of a WebSocket.

    A decorator copies the attributes of what it decorates (``functools.wraps``). What it returns finds tokens in the
    same places, and may do something else before, so it is not the handler that checks them.

    Attributes:
        guard: the guard.
        source: another source of the token than the headers; ``None`` without one.
        handler: the handler.
    """

    guard: object
    source: Callable[[web.Request], object] | None
    handler: object

    def mark(self, handler: Any) -> None:
        """Mark a handler that checks in this way."""
        setattr(handler, _CHECK, self._replace(handler=handler))


def own_check(handler: Any, guard: object) -> OwnCheck | None:
    """Return how a handler checks tokens by a guard; ``None`` if it does not."""
    found: OwnCheck | None = marks(handler).get(_CHECK)
    return found if found is not None and found.guard is guard else None


def check_of_websocket(request: web.Request, guard: object) -> OwnCheck | None:
    """Return how the handler of a WebSocket checks tokens by a guard; ``None`` if it does not, or is none."""
    return own_check(request.match_info.handler, guard) if is_websocket(request) else None


def is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def is_view(handler: Any) -> bool:
    return isinstance(handler, type) and issubclass(handler, web.View)


def is_exempt(request: web.Request, guard: object) -> bool:
    """Return whether a request goes to a handler that needs no token, or that asks the guard itself."""
    handler: Any = request.match_info.handler
    own = own_check(handler, guard)
    if (own is not None and own.handler is handler) or is_marked_public(handler):
        return True
    return is_view(handler) and is_marked_public(getattr(handler, request.method.lower(), None))


def is_preflight(request: web.Request) -> bool:
    """Return whether a request is a CORS preflight (Fetch Standard §3.2.2) that goes to what handles such requests.

    A handler for every method is none of these: it may do for OPTIONS what it does for others.
    """
    headers = request.headers
    if request.method != "OPTIONS" or "Origin" not in headers or "Access-Control-Request-Method" not in headers:
        return False
    info = request.match_info
    if info.http_exception is not None or info.route.method == "OPTIONS":
        return True
    return is_view(info.handler) and hasattr(info.handler, "options")


async def says_so(is_public: Callable[[Any], object], request: web.Request, tell: Callable[..., object]) -> bool:
    """Return whether a predicate says that a request needs no token; not if it fails.

    Args:
        is_public: the predicate; a plain or a coroutine function.
        request: the request.
        tell: writes a line to the log.
    """
    try:
        return truth("is_public", await awaited("is_public", called("is_public", is_public, request)))
    except InvalidOption as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - of the application; the guard still decides about the request
        problem = describe(error)
    tell("ERROR", "request needs a token, is_public failed", error=problem)
    return False


class Check(Protocol):
    """Decides about a request before its handler is called."""

    def __call__(self, request: web.Request, *, is_open: bool) -> Awaitable[web.StreamResponse | None]:
        """Return the response to send instead; ``None`` to go on.

        Args:
            request: the request.
            is_open: whether it is a WebSocket that was accepted.
        """


def checked(handler: AnyHandler, check: Check) -> AnyHandler:
    """Return a handler that does the same after a check.

    Raises:
        InvalidOption: it is not a function or method.
    """
    if is_view(handler):
        raise InvalidOption("handler", "must be a function or method: decorate the methods of the view")
    inner: Any = function("handler", handler)

    @functools.wraps(inner)
    async def first_checked(*arguments: Any) -> Any:
        is_open = any(isinstance(one, web.WebSocketResponse) for one in arguments)
        response = await check(_request_in(arguments), is_open=is_open)
        return await inner(*arguments) if response is None else response

    own: OwnCheck | None = marks(inner).get(_CHECK)
    if own is not None and own.handler is inner:
        own.mark(first_checked)
    return cast("AnyHandler", first_checked)


def _request_in(arguments: tuple[Any, ...]) -> web.Request:
    for one in arguments:
        if isinstance(one, web.Request):
            return one
        if isinstance(one, web.View):
            return one.request
    raise InvalidOption("handler", "must take a request, or be a method of a view")
