"""What an application opens before it starts, and closes in the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from jwt_events.errors import InvalidOption
from jwt_events.guard._readiness import report_end


def check_resources(resources: tuple[object, ...]) -> None:
    """Check that resources can be opened.

    Raises:
        InvalidOption: one is not an asynchronous context manager.
    """
    for resource in resources:
        if not isinstance(resource, AbstractAsyncContextManager):
            problem = f"must be asynchronous context managers, as a RevocationList, not {type(resource).__name__}"
            raise InvalidOption("resources", f"{problem}: pass lifespan(revocations), and not lifespan itself")


@asynccontextmanager
async def opened(
    resources: tuple[AbstractAsyncContextManager[object], ...],
    *,
    then: AbstractAsyncContextManager[Any] | None = None,
    on_open: Callable[[Any], object] | None = None,
) -> AsyncGenerator[Any, None]:
    """Open resources in order, and close them in reverse; report an error that ends the block.

    If one cannot be opened, those before it are closed, and its error is raised: the server says that it cannot start.

    Args:
        resources: as `check_resources` accepts them.
        then: what to open after them; what it yields is what this one yields.
        on_open: is called with each resource that is open.
    """
    is_open = False
    try:
        async with AsyncExitStack() as stack:
            for resource in resources:
                await stack.enter_async_context(resource)
                if on_open is not None:
                    on_open(resource)
            state = None if then is None else await stack.enter_async_context(then)
            is_open = True
            yield state
    except Exception as error:
        if is_open:
            report_end(error)
        raise
