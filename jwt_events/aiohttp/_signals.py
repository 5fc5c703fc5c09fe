"""Routes that receive what other systems say."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from jwt_events.aiohttp._handlers import public
from jwt_events.publisher import Publisher
from jwt_events.signals import GlobalRevocationEndpoint, LogoutEndpoint, LogoutTokens, SecurityEvents, SetEndpoint


def logout_router(
    publisher: Publisher, tokens: LogoutTokens, path: str = "/backchannel-logout", **options: Any
) -> list[web.RouteDef]:
    """Return routes, for ``app.add_routes``, that receive logout tokens (OpenID Connect Back-Channel Logout 1.0).

    Its options and errors are those of `jwt_events.asgi.logout_router`. A guard of the application lets requests in.
    """
    return _signal_routes(LogoutEndpoint(publisher, tokens, **options), path)


def set_router(
    publisher: Publisher, events: SecurityEvents, path: str = "/events", **options: Any
) -> list[web.RouteDef]:
    """Return routes, for ``app.add_routes``, that receive security event tokens which are pushed (RFC 8935).

    Its options and errors are those of `jwt_events.asgi.set_router`. A guard of the application lets requests in.
    """
    return _signal_routes(SetEndpoint(publisher, events, **options), path)


def global_revocation_router(
    publisher: Publisher, subject: Any, path: str = "/global-token-revocation", **options: Any
) -> list[web.RouteDef]:
    """Return routes, for ``app.add_routes``, that receive requests to revoke all tokens of a user (a draft).

    Its options and errors are those of `jwt_events.asgi.global_revocation_router`. A guard of the application lets
    requests in.
    """
    return _signal_routes(GlobalRevocationEndpoint(publisher, subject, **options), path)


def _signal_routes(endpoint: GlobalRevocationEndpoint | LogoutEndpoint | SetEndpoint, path: str) -> list[web.RouteDef]:
    @public
    async def receive(request: web.Request) -> web.Response:
        response = await endpoint.respond(request.method, request.headers.items(), request.content.iter_any())
        return web.Response(body=response.body, status=response.status, headers=response.headers)

    return [web.post(path, receive)]
