"""Streaming responses that end with their token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from typing import TypeVar

from jwt_events._internal.functions import function
from jwt_events.errors import Closed, ExpiredTokenError, RevokedTokenError
from jwt_events.guard._overdue import OverdueClose
from jwt_events.revocation import RevocationList, ViewState

Item = TypeVar("Item")


async def until_revoked(
    revocations: RevocationList,
    claims: Mapping[str, object],
    items: AsyncIterable[Item],
    *,
    close: Callable[[], object] | None = None,
    until_expiry: bool = True,
) -> AsyncGenerator[Item, None]:
    """Yield items until they end or the token is revoked or expires, whichever comes first: for streaming responses.

    They end, too, if the list is closed. Then the iterator of the items is cancelled where it waits. It always runs in
    the task that consumes them.

    Args:
        revocations: reports the revocation, and the end; it must be open.
        claims: the claims of the token, with its ``kid``.
        items: what to pass on; an asynchronous generator is closed in the end.
        close: closes the response from outside; a plain or a coroutine function, called if the items do not end within
            a second.
        until_expiry: whether the ``exp`` of the token ends them.

    Raises:
        Closed: the list is not open.
        InvalidOption: ``close`` is not a function.
        InvalidClaims: the ``exp`` is not a number.
    """
    if close is not None:
        function("close", close)
    iterator, is_begun = aiter(items), False
    try:
        while True:
            try:
                async with (
                    OverdueClose(close) as overdue,
                    revocations.watch(claims, overdue.start, cancel=True, until_expiry=until_expiry),
                ):
                    is_begun = True
                    item = await anext(iterator)
            except (RevokedTokenError, ExpiredTokenError, StopAsyncIteration):
                return
            except Closed:
                if is_begun and revocations.state is ViewState.CLOSED:
                    return
                raise
            yield item
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


async def all_of(items: AsyncIterable[Item]) -> AsyncGenerator[Item, None]:
    """Yield items until they end: there is no token that could."""
    async for item in items:
        yield item
