"""What an endpoint depends on, as FastAPI knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection


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
