"""What an endpoint depends on, as FastAPI knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from jwt_events.guard import requirement_of


def _roots(connection: HTTPConnection) -> Iterator[Dependant]:
    """Yield what the endpoint of a connection depends on."""
    scope = connection.scope
    included = scope.get("fastapi", {}).get("effective_route_context")  # from FastAPI 0.130 on, of an included router
    for route in (included, scope.get("route")):
        if isinstance(dependant := getattr(route, "dependant", None), Dependant):
            yield dependant


def dependencies(connection: HTTPConnection) -> Iterator[Dependant]:
    """Yield all dependencies of an endpoint, direct or not."""
    pending = list(_roots(connection))
    while pending:
        dependant = pending.pop()
        yield dependant
        pending.extend(dependant.dependencies)


def is_overridden(connection: HTTPConnection, is_guard: Callable[[object], bool]) -> bool:
    """Return whether a test has replaced a guard, or a dependency that contains it (``dependency_overrides``).

    Args:
        connection: the request, or the WebSocket.
        is_guard: returns whether a dependency is the guard.
    """
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", {})
    return any(_is_replaced(is_guard, root, overrides) for root in _roots(connection))


def _is_replaced(is_guard: Callable[[object], bool], dependant: Dependant, overrides: Mapping[Any, Any]) -> bool:
    return any(
        (one.call in overrides and _contains(is_guard, one)) or _is_replaced(is_guard, one, overrides)
        for one in dependant.dependencies
    )


def _contains(is_guard: Callable[[object], bool], dependant: Dependant) -> bool:
    return is_guard(dependant.call) or any(_contains(is_guard, one) for one in dependant.dependencies)


def check_scopes(app: object, is_guard: Callable[[object], bool]) -> None:
    """Check the scopes that the endpoints of an application require of guards.

    Args:
        app: the application; one that is not of FastAPI has no scopes.
        is_guard: returns whether a dependency is a guard.

    Raises:
        InvalidOption: there is one that no token can grant.
    """
    pending = list(getattr(app, "routes", ()))
    while pending:
        route = pending.pop()
        pending.extend(getattr(getattr(route, "original_router", None), "routes", ()))
        if isinstance(root := getattr(route, "dependant", None), Dependant):
            _check_scopes(root, is_guard)


def _check_scopes(dependant: Dependant, is_guard: Callable[[object], bool]) -> None:
    scopes = getattr(dependant, "own_oauth_scopes", None) or getattr(dependant, "security_scopes", None) or ()
    if _contains(is_guard, dependant):
        requirement_of(scopes)
    for one in dependant.dependencies:
        _check_scopes(one, is_guard)
