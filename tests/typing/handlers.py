"""What a type checker knows of handlers. Nothing here is run; `make types` checks it, with mypy and with pyright."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_type

from jwt_events import (
    Event,
    EventType,
    Gap,
    RevocationList,
    SessionDestroyed,
    Subscriber,
    SubscriberStats,
    TokenRevoked,
    Verdict,
    ViewState,
    Watch,
)


async def by_class(subscriber: Subscriber, revoked: TokenRevoked, destroyed: SessionDestroyed) -> None:
    """A handler is typed by the classes it is registered for, and stays what it was."""

    @subscriber.on(TokenRevoked)
    async def one(event: TokenRevoked) -> int:
        assert_type(event.token_id, str | None)
        return 1

    @subscriber.on(TokenRevoked, SessionDestroyed)
    def two(event: TokenRevoked | SessionDestroyed) -> str:
        return assert_type(event.session_id, str | None) or ""

    @subscriber.on()
    async def every(event: Event) -> None:
        assert_type(event.id, str)

    @subscriber.on(EventType.TOKEN_REVOKED)
    async def by_type(event: TokenRevoked) -> None: ...

    assert_type(await one(revoked), int)
    assert_type(two(destroyed), str)
    assert_type(await every(revoked), None)
    subscriber.on(SessionDestroyed)(lambda event: assert_type(event, SessionDestroyed))


def wider(subscriber: Subscriber, of_any: Callable[[Event], Awaitable[None]]) -> None:
    """A handler of every event serves for one class, and the other way round is a mistake."""
    subscriber.on(TokenRevoked)(of_any)

    @subscriber.on(TokenRevoked)  # type: ignore[arg-type]  # the mistake that is to be found
    async def of_another(event: SessionDestroyed) -> None: ...

    @subscriber.on()  # type: ignore[arg-type]  # the mistake that is to be found
    async def of_one(event: TokenRevoked) -> None: ...


async def the_rest(subscriber: Subscriber) -> None:
    """What else a subscriber gives."""

    @subscriber.on_gap
    def gap(gap: Gap) -> None:
        assert_type(gap.lost, int | None)

    async with subscriber as entered:
        assert_type(entered, Subscriber)
    async for event in subscriber.events():
        assert_type(event, Event)
    assert_type(subscriber.stats, SubscriberStats)


async def checks(revocations: RevocationList, claims: dict[str, object], revoked: TokenRevoked) -> None:
    """What a list of revocations answers."""

    @revocations.on(TokenRevoked)
    def take(event: TokenRevoked) -> None: ...

    @revocations.on_state
    def state(state: ViewState) -> None: ...

    async with revocations as entered, revocations.watch(claims) as watch:
        assert_type(entered, RevocationList)
        assert_type(watch, Watch)
    assert_type(revocations.check(claims), Verdict)
    assert_type(revocations.staleness, float)
    assert_type(take(revoked), None)
