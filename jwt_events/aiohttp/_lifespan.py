"""What an application opens when it starts, and whether it is ready."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiohttp import web

from jwt_events.aiohttp._handlers import Handler, public
from jwt_events.guard import Reporting, check_resources, opened, readiness_of
from jwt_events.publisher import Publisher
from jwt_events.revocation import RevocationList
from jwt_events.subscriber import Subscriber

REVOCATIONS = web.AppKey("REVOCATIONS", RevocationList)
"""Key of an application under which `lifespan` stores its first `RevocationList`."""
PUBLISHER = web.AppKey("PUBLISHER", Publisher)
"""Key under which it stores the first `Publisher`."""
SUBSCRIBER = web.AppKey("SUBSCRIBER", Subscriber)
"""Key under which it stores the first `Subscriber`."""

_KEYS: tuple[web.AppKey[Any], ...] = (REVOCATIONS, PUBLISHER, SUBSCRIBER)
_RESOURCES: web.AppKey[Any] = web.AppKey("_RESOURCES", tuple)
_KINDS = (RevocationList, Publisher, Subscriber)


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
    check_resources(resources)

    async def run(app: web.Application) -> AsyncIterator[None]:
        app[_RESOURCES] = resources

        def keep(resource: object) -> None:
            for key, kind in zip(_KEYS, _KINDS, strict=True):
                if isinstance(resource, kind) and key not in app:
                    app[key] = resource

        async with opened(resources, on_open=keep):
            yield

    return run


def readiness_handler(*lists: RevocationList | Reporting) -> Handler:
    """Return a handler: 200 if every revocation list is fresh, else 503; the body says which is not.

    It is 503, too, if a `Subscriber` or `SetPoller` that is passed is not live, or a `Subscriber` that `lifespan`
    opened has failed. It needs no token and discloses no secrets.

    Raises:
        InvalidOption: ``lists`` is empty, or contains something else.
    """
    readiness_of(*lists)

    @public
    async def ready(request: web.Request) -> web.Response:
        status, body = readiness_of(*lists, resources=request.config_dict.get(_RESOURCES, ()))
        return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

    return ready
