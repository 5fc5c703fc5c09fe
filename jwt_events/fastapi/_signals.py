"""Routers that receive what other systems say."""

# Annotations are not postponed here: FastAPI could not resolve those of a function inside a function.

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jwt_events.publisher import Publisher
from jwt_events.signals import GlobalRevocationEndpoint, LogoutEndpoint, LogoutTokens, SecurityEvents, SetEndpoint

PUBLIC = "_jwt_events_is_public"
"""Attribute of an endpoint that needs no token, even if all others do."""


def logout_router(
    publisher: Publisher, tokens: LogoutTokens, path: str = "/backchannel-logout", **options: Any
) -> APIRouter:
    """Return a router that receives logout tokens (OpenID Connect Back-Channel Logout 1.0).

    Its options and errors are those of `jwt_events.asgi.logout_router`. A guard of the application lets requests in.
    """
    return _signal_router(LogoutEndpoint(publisher, tokens, **options), path)


def set_router(publisher: Publisher, events: SecurityEvents, path: str = "/events", **options: Any) -> APIRouter:
    """Return a router that receives security event tokens that are pushed (RFC 8935).

    Its options and errors are those of `jwt_events.asgi.set_router`. A guard of the application lets requests in.
    """
    return _signal_router(SetEndpoint(publisher, events, **options), path)


def global_revocation_router(
    publisher: Publisher, subject: Any, path: str = "/global-token-revocation", **options: Any
) -> APIRouter:
    """Return a router that receives requests to revoke all tokens of a user (a draft).

    Its options and errors are those of `jwt_events.asgi.global_revocation_router`. A guard of the application lets
    requests in.
    """
    return _signal_router(GlobalRevocationEndpoint(publisher, subject, **options), path)


def _signal_router(endpoint: GlobalRevocationEndpoint | LogoutEndpoint | SetEndpoint, path: str) -> APIRouter:
    router = APIRouter()

    @router.post(path, include_in_schema=False)
    async def receive(request: Request) -> Response:
        response = await endpoint.respond(request.method, request.headers.items(), request.stream())
        return Response(response.body, response.status, response.headers)

    setattr(receive, PUBLIC, True)
    return router
