"""Who may not run beside whom: held against the plainest model of it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jwt_events.subscriber._ordering import OrderingQueues

_KEYS = st.sampled_from([None, "a", "b", "c", 0, ("d", 1)])
_MAX_WAITING = 1_024


class _Model(RuleBasedStateMachine):
    """Calls come and end at any time; those of a key run one at a time, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: OrderingQueues[int] = OrderingQueues()
        self._number = 0
        self._running: list[tuple[Any, int]] = []
        self._waiting: defaultdict[Any, list[int]] = defaultdict(list)

    @rule(key=_KEYS)
    def come(self, key: Any) -> None:
        """One comes, and runs or waits."""
        self._number += 1
        is_busy = key is not None and key in [other for other, _ in self._running]
        assert self._queues.is_busy(key) == is_busy
        if is_busy:
            self._queues.enqueue(key, self._number)
            self._waiting[key].append(self._number)
        else:
            self._queues.acquire(key)
            self._running.append((key, self._number))

    @precondition(lambda self: self._running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """One ends, whichever, and the first of those behind it runs."""
        key, number = data.draw(st.sampled_from(self._running))
        self._running.remove((key, number))
        follower = self._waiting[key].pop(0) if self._waiting[key] else None
        assert self._queues.release(key) == follower
        if follower is not None:
            self._running.append((key, follower))

    @rule()
    def clear(self) -> None:
        """All that wait are dropped; those that run go on, and have nobody behind them."""
        waiting = [number for numbers in self._waiting.values() for number in numbers]
        assert sorted(self._queues.clear()) == sorted(waiting)
        for key, _ in self._running:
            assert self._queues.release(key) is None
        self._running.clear()
        self._waiting.clear()

    @invariant()
    def never_two_of_a_key(self) -> None:
        """No two of a key run, and no key is remembered of which none runs."""
        keys = [key for key, _ in self._running if key is not None]
        assert len(keys) == len(set(keys))
        assert self._queues._queues.keys() == set(keys)


TestModel = _Model.TestCase


def test_room() -> None:
    """So many may wait, in whichever lanes; one that runs or is dropped makes room for another."""
    lanes: OrderingQueues[int] = OrderingQueues()
    for key in ("a", "b"):
        lanes.acquire(key)
    for number in range(_MAX_WAITING):
        assert lanes.has_room
        lanes.enqueue("ab"[number % 2], number)
    assert not lanes.has_room
    assert lanes.release("b") == 1
    assert lanes.has_room
    lanes.enqueue("a", -1)
    assert not lanes.has_room
    assert len(lanes.clear()) == _MAX_WAITING
    assert lanes.has_room
