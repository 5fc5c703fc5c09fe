"""Handlers in order: one after another for equal keys, side by side for different ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from jwt_events import Event, MemoryTransport, Retry, Subscriber, TokenRevoked
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish
from tests.support.waiting import wait_until


@pytest.fixture
def transport() -> MemoryTransport:
    """Where the events of a test travel."""
    return MemoryTransport()


def _of_user(event: Event) -> str | None:
    return event.user_id if isinstance(event, TokenRevoked) else None


class _Watch:
    """A handler that gives way to others several times, and notes who ran at the same time."""

    def __init__(self) -> None:
        self.order: defaultdict[str | None, list[str | None]] = defaultdict(list)
        self.overlaps: list[str | None] = []
        self._running: set[str | None] = set()

    async def __call__(self, event: TokenRevoked) -> None:
        """Handle an event."""
        if event.user_id in self._running:
            self.overlaps.append(event.user_id)
        self._running.add(event.user_id)
        self.order[event.user_id].append(event.token_id)
        for _ in range(3):
            await asyncio.sleep(0)
        self._running.discard(event.user_id)


async def test_equal_keys_in_order(transport: MemoryTransport) -> None:
    """Events of one key are handled in the order of their publication, and never two at a time."""
    subscriber, watch = Subscriber(transport, ordered_by=_of_user), _Watch()
    subscriber.on(TokenRevoked)(watch)
    async with subscriber:
        await publish(transport, *(revoked(n, user_id=f"user-{n % 3}") for n in range(150)))
        await wait_until(lambda: subscriber.stats.handled == 150)
    assert watch.order == {f"user-{user}": [f"token-{n}" for n in range(user, 150, 3)] for user in range(3)}
    assert watch.overlaps == []


async def test_one_key_for_all_handlers(transport: MemoryTransport) -> None:
    """The key of an event is asked for once, however many handlers it has, and each of them keeps the order."""
    asked: list[str] = []

    def ordered_by(event: Event) -> str | None:
        asked.append(event.id)
        return _of_user(event)

    subscriber, watches = Subscriber(transport, ordered_by=ordered_by), [_Watch(), _Watch()]
    for watch in watches:
        subscriber.on(TokenRevoked)(watch)
    events = [revoked(n, user_id=f"user-{n % 2}") for n in range(20)]
    async with subscriber:
        await publish(transport, *events)
        await wait_until(lambda: subscriber.stats.handled == 20)
    assert asked == [event.id for event in events]
    for watch in watches:
        assert watch.order == {f"user-{user}": [f"token-{n}" for n in range(user, 20, 2)] for user in range(2)}


async def test_no_order_without_keys(transport: MemoryTransport) -> None:
    """None as a key means that order does not matter."""
    subscriber, gate = Subscriber(transport, ordered_by=_of_user), Gate()
    subscriber.on(TokenRevoked)(gate)
    async with subscriber:
        await publish(transport, *map(revoked, range(20)))
        await wait_until(lambda: gate.running == 20)
        gate.open()


async def test_other_keys_go_on(transport: MemoryTransport) -> None:
    """A key whose handler hangs holds up no other key."""
    subscriber, gate, recorder = Subscriber(transport, ordered_by=_of_user), Gate(), Recorder()

    @subscriber.on(TokenRevoked)
    async def handle(event: TokenRevoked) -> None:
        await (gate if event.user_id == "slow" else recorder)(event)

    async with subscriber:
        await publish(transport, *(revoked(n, user_id="slow" if n % 10 == 0 else f"user-{n % 3}") for n in range(100)))
        await recorder.has_seen(90)
        assert gate.running == len(gate.seen) == 1
        gate.open()
        await wait_until(lambda: subscriber.stats.handled == 100)
    assert [event.token_id for event in gate.finished] == [f"token-{n}" for n in range(0, 100, 10)]


async def test_several_handlers_of_one_event(transport: MemoryTransport) -> None:
    """Handlers of one event with a key take turns in the order of their registration."""
    subscriber, turns = Subscriber(transport, ordered_by=_of_user), list[tuple[str, str | None]]()

    @subscriber.on(TokenRevoked)
    async def first(event: TokenRevoked) -> None:
        await asyncio.sleep(0)
        turns.append(("first", event.token_id))

    @subscriber.on(TokenRevoked)
    async def second(event: TokenRevoked) -> None:
        turns.append(("second", event.token_id))

    async with subscriber:
        await publish(transport, *(revoked(n, user_id="user") for n in range(3)))
        await wait_until(lambda: subscriber.stats.handled == 3)
    assert turns == [(name, f"token-{n}") for n in range(3) for name in ("first", "second")]


async def test_a_failure_holds_its_place(transport: MemoryTransport) -> None:
    """An event is tried again before the next of its key begins, and passed over once it failed for good."""
    subscriber = Subscriber(transport, ordered_by=_of_user, retry=Retry(attempts=3, initial=0.001))
    calls: list[str | None] = []

    @subscriber.on(TokenRevoked)
    async def fail(event: TokenRevoked) -> None:
        calls.append(event.token_id)
        if event.token_id == "token-0":
            raise ValueError

    async with subscriber:
        await publish(transport, *(revoked(n, user_id="user") for n in range(2)))
        await wait_until(lambda: subscriber.stats.handled == 1)
    assert calls == ["token-0", "token-0", "token-0", "token-1"]
    assert subscriber.stats.failed == 1


def _raises(event: Event) -> Any:
    raise KeyError(event.subject)


async def _later() -> None: ...


@pytest.mark.parametrize(
    "ordered_by",
    [_raises, lambda _: [], lambda event: {event}, lambda _: _later()],
    ids=["raises", "list", "set", "coroutine"],
)
async def test_no_key_to_be_had(transport: MemoryTransport, ordered_by: Any) -> None:
    """Where the function fails, or what it returns cannot be a key, the event is handled all the same."""
    subscriber, recorder = Subscriber(transport, ordered_by=ordered_by), Recorder()
    subscriber.on(TokenRevoked)(recorder)
    async with subscriber:
        await publish(transport, revoked(1), revoked(2))
        await recorder.has_seen(2)
        await wait_until(lambda: subscriber.stats.handled == 2)


async def test_keys_are_forgotten(transport: MemoryTransport) -> None:
    """A key takes memory only while one of its handlers is running."""
    subscriber = Subscriber(transport, ordered_by=_of_user)
    subscriber.on(TokenRevoked)(_Watch())
    async with subscriber:
        await publish(transport, *(revoked(n, user_id=f"user-{n}") for n in range(200)))
        await wait_until(lambda: subscriber.stats.handled == 200)
        assert subscriber._subscription is not None
        queues = subscriber._subscription.dispatcher._queues
        await wait_until(lambda: not any(queues.is_busy(f"user-{n}") for n in range(200)))


async def test_waiting_turns_end_with_the_subscriber() -> None:
    """When the time to drain is over, events that wait for their turn are cancelled with the one that hangs."""
    transport, gate = MemoryTransport(), Gate()
    subscriber = Subscriber(transport, ordered_by=_of_user, drain_timeout=0.05)
    subscriber.on(TokenRevoked)(gate)
    async with subscriber:
        await publish(transport, *(revoked(n, user_id="user") for n in range(5)))
        await wait_until(lambda: subscriber.stats.in_flight == 5)
    assert len(gate.seen) == len(gate.cancelled) == 1
    assert subscriber.stats.failed == 5
