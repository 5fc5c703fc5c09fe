"""Options that cannot work are refused where they are given, by name; and the small rules behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from functools import partial, wraps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    InvalidOption,
    JWTEventsError,
    MemoryTransport,
    Publisher,
    RedisStream,
    Retry,
    RevocationList,
    Subscriber,
)
from jwt_events._internal import options as rules
from jwt_events._internal.retry import backoff, pace
from jwt_events.subscriber._reader import SeenIds


async def _later(event: object) -> object: ...


def _many(event: object) -> Iterator[object]:
    yield event


class _Later:
    async def __call__(self, event: object) -> object: ...


_NO_SECONDS = [0, -1, -0.5, float("nan"), float("inf"), float("-inf"), 10**400, True, "5", None, 1j, timedelta(1)]
_NO_COUNT = [0, -1, 1.5, 1.0, float("nan"), True, False, "5", None, 1j]


def _cases(**lists: list[Any]) -> pytest.MarkDecorator:
    cases = [(option, value) for option, values in lists.items() for value in values]
    return pytest.mark.parametrize(("option", "value"), cases, ids=lambda value: str(value)[:20])


_retries = st.builds(
    Retry,
    attempts=st.integers(1, 50),
    initial=st.floats(1e-6, 1e6),
    maximum=st.floats(1e-6, 1e6),
    jitter=st.booleans(),
)


class TestSubscriber:
    """Options of the subscriber."""

    @_cases(
        concurrency=_NO_COUNT,
        drain_timeout=_NO_SECONDS,
        handler_timeout=[value for value in _NO_SECONDS if value is not None],
        retry=["x", 3, None, Retry],
        ordered_by=[5, "user_id", ("user_id",), _later, partial(_later), wraps(_later)(lambda _: 1), _Later(), _many],
    )
    def test_refused(self, option: str, value: Any) -> None:
        """A value that cannot work is refused when the subscriber is made, and the error names the option."""
        with pytest.raises(InvalidOption) as caught:
            Subscriber(MemoryTransport(), **{option: value})
        assert caught.value.option == option
        assert str(caught.value).startswith(f"{option}: must ")
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, JWTEventsError)

    @_cases(
        concurrency=[1, 10_000],
        drain_timeout=[0.001, 1, 1e9],
        handler_timeout=[None, 0.001, 60],
        retry=[Retry(attempts=1)],
        ordered_by=[None, str, lambda event: event.subject],
    )
    def test_accepted(self, option: str, value: Any) -> None:
        """What can work is accepted."""
        assert "idle" in repr(Subscriber(MemoryTransport(), **{option: value}))


@pytest.mark.parametrize(
    "transport", ["redis://:secret@localhost", None, object(), RedisStream], ids=["url", "none", "object", "class"]
)
@pytest.mark.parametrize("make", [Publisher, Subscriber, RevocationList])
def test_no_transport(make: Any, transport: object) -> None:
    """A URL, or anything else in the place of a transport, is refused at once, and the right line is shown."""
    with pytest.raises(InvalidOption) as caught:
        make(transport)
    assert f'{make.__name__}(RedisStream("redis://localhost"))' in str(caught.value)
    assert "secret" not in str(caught.value)


class TestRetry:
    """When a handler is called again."""

    @_cases(
        attempts=_NO_COUNT,
        initial=_NO_SECONDS,
        maximum=_NO_SECONDS,
        on=[ValueError, [ValueError], "x", (5,), ("ValueError",), (ValueError(),), (int,), None],
    )
    def test_refused(self, option: str, value: Any) -> None:
        """A policy that cannot work is refused, and the error names the option."""
        with pytest.raises(InvalidOption) as caught:
            Retry(**{option: value})
        assert caught.value.option == option

    def test_immutable(self) -> None:
        """A policy is a value and can be shared."""
        assert Retry() == Retry()
        assert hash(Retry()) == hash(Retry())
        with pytest.raises(AttributeError):
            Retry().attempts = 5  # type: ignore[misc]  # the point of the test

    @given(_retries, st.integers(1, 60), st.floats(0, 1))
    def test_delays(self, retry: Retry, attempt: int, chance: float) -> None:
        """There are as many calls as allowed, and no wait is longer than the maximum or negative."""
        delay = retry.delay(attempt, ValueError(), chance=lambda: chance)
        if attempt >= retry.attempts:
            assert delay is None
        else:
            longest = min(retry.maximum, retry.initial * 2 ** (attempt - 1))
            assert delay == (chance * longest if retry.jitter else longest)

    @given(st.lists(st.sampled_from([ValueError, OSError, LookupError]), unique=True))
    def test_on(self, classes: list[type[Exception]]) -> None:
        """Only the named exceptions and those derived from them are worth another call."""
        retry = Retry(on=tuple(classes))
        for error in (ValueError(), UnicodeError(), ConnectionResetError(), KeyError(), AttributeError()):
            assert (retry.delay(1, error) is not None) == isinstance(error, tuple(classes))

    def test_nothing_else_by_default(self) -> None:
        """By default every Exception is worth another call, and nothing beyond."""
        assert Retry().delay(1, Exception()) is not None
        assert Retry().delay(1, SystemExit()) is None


class TestBackoff:
    """How long to wait after failures in a row."""

    @given(st.integers(1, 10_000), st.floats(1e-6, 1e3), st.floats(1e-6, 1e6))
    def test_bounded_and_growing(self, failures: int, initial: float, maximum: float) -> None:
        """The longest wait grows from failure to failure up to the maximum, however many there are."""
        longest = [backoff(n, initial=initial, maximum=maximum, chance=lambda: 1.0) for n in (failures, failures + 1)]
        assert min(initial, maximum) <= longest[0] <= longest[1] <= maximum

    @given(st.integers(1, 100))
    def test_full_jitter(self, failures: int) -> None:
        """A wait is anything between nothing and the longest."""
        longest = backoff(failures, initial=0.1, maximum=5, chance=lambda: 1.0)
        assert backoff(failures, initial=0.1, maximum=5, chance=lambda: 0.0) == 0
        assert backoff(failures, initial=0.1, maximum=5, chance=lambda: 0.5) == longest / 2
        assert 0 <= backoff(failures, initial=0.1, maximum=5) <= longest


class TestPace:
    """How often an outage is looked at."""

    @given(st.floats(0, 1e9), st.floats(0, 1))
    def test_bounds(self, age: float, chance: float) -> None:
        """A pause is a fiftieth of the outage at most, within its bounds, and half of that at least."""
        pause = pace(age, minimum=0.2, maximum=1.0, chance=lambda: chance)
        longest = min(1.0, max(0.2, age / 50))
        assert longest / 2 <= pause <= longest

    def test_long_outage(self) -> None:
        """A short outage is looked at every fifth of a second or more often, a long one costs one look a second."""
        age, looks = 0.0, list[float]()
        while age < 3_600:
            age += pace(age, minimum=0.2, maximum=1.0, chance=lambda: 1.0)
            looks.append(age)
        assert sum(look < 10 for look in looks) <= 50
        assert len(looks) <= 3_750


class TestRules:
    """What an option may be."""

    @given(st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**300))
    def test_seconds(self, value: float) -> None:
        """Any positive, finite number is a duration."""
        seconds = rules.seconds("option", value)
        assert isinstance(seconds, float)
        assert math.isclose(seconds, value)

    @pytest.mark.parametrize("value", _NO_SECONDS, ids=lambda value: str(value)[:20])
    def test_no_seconds(self, value: Any) -> None:
        """Nothing else is."""
        with pytest.raises(InvalidOption, match="option: must be a"):
            rules.seconds("option", value)

    def test_optional_seconds(self) -> None:
        """None is passed on where it has a meaning."""
        assert rules.optional_seconds("option", None) is None
        assert rules.optional_seconds("option", 2) == 2.0
        with pytest.raises(InvalidOption):
            rules.optional_seconds("option", 0)

    @given(st.integers(1, 100), st.integers())
    def test_count(self, most: int, value: int) -> None:
        """A count is a whole number from one to the limit, and the error names the limit."""
        if 1 <= value <= most:
            assert rules.count("option", value, maximum=most) == value
        else:
            with pytest.raises(InvalidOption, match=f"at least 1 and at most {most}"):
                rules.count("option", value, maximum=most)

    @pytest.mark.parametrize("value", [timedelta(0), timedelta(-1), timedelta(microseconds=999), 5, "1 day", None])
    def test_no_duration(self, value: Any) -> None:
        """A duration is a timedelta of at least a millisecond."""
        assert rules.duration("option", timedelta(milliseconds=1)) == timedelta(milliseconds=1)
        with pytest.raises(InvalidOption, match="option: must be"):
            rules.duration("option", value)

    @pytest.mark.parametrize("value", ["", " ", "a\nb", "a\0b", "\u2028", "a" * 513, b"bytes", 5, None], ids=repr)
    def test_no_name(self, value: Any) -> None:
        """A name is 1 to 512 printable characters."""
        assert rules.name("option", "a" * 512) == "a" * 512
        assert rules.name("option", "jwt:events é") == "jwt:events é"
        with pytest.raises(InvalidOption, match="option: must be"):
            rules.name("option", value)


class TestSeenIds:
    """Which events were there already."""

    @given(st.integers(1, 20), st.lists(st.integers(0, 40).map(str), max_size=200))
    def test_window(self, window: int, ids: list[str]) -> None:
        """An id within the window is never new again; one that was not there for two windows always is."""
        seen = SeenIds(window)
        distinct: list[str] = []  # in the order in which they were new
        for event_id in ids:
            is_new = seen.is_new(event_id)
            if event_id in distinct[-window:]:
                assert not is_new
            if event_id not in distinct[-2 * window :]:
                assert is_new
            if is_new:
                distinct.append(event_id)

    @given(st.integers(1, 20), st.integers(0, 200))
    def test_memory(self, window: int, number: int) -> None:
        """It never remembers more than two windows."""
        seen = SeenIds(window)
        for event_id in range(number):
            seen.is_new(str(event_id))
        assert sum(not seen.is_new(str(event_id)) for event_id in range(number)) <= 2 * window

    def test_sources(self) -> None:
        """Equal ids of two sources are two events, each of which is new once; forgetting concerns one of them."""
        seen = SeenIds(10)
        for source in ("a", "b", None):
            assert seen.is_new("1", source)
        assert not any(seen.is_new("1", source) for source in ("a", "b", None))
        seen.forget("1", "a")
        assert [seen.is_new("1", source) for source in ("b", None, "a", "a")] == [False, False, True, False]
        seen.forget("1", "b")
        assert [seen.is_new("1", source) for source in ("a", None, "b", "b")] == [False, False, True, False]

    @given(st.integers(1, 10), st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 15).map(str)), max_size=100))
    def test_window_of_sources(self, window: int, ids: list[tuple[str, str]]) -> None:
        """What was new within the last half of a window is never new again, from whichever sources."""
        seen = SeenIds(2 * window)
        distinct: list[tuple[str, str]] = []  # in the order in which they were new
        for source, event_id in ids:
            is_new = seen.is_new(event_id, source)
            if (source, event_id) in distinct[-window:]:
                assert not is_new
            if is_new:
                distinct.append((source, event_id))

    @pytest.mark.parametrize("others", [0, 5, 15])
    def test_forget(self, others: int) -> None:
        """An id that was forgotten is new again, in whichever half of the window it was; others are not affected."""
        seen = SeenIds(10)
        for event_id in range(others + 1):
            seen.is_new(str(event_id))
        seen.forget("0")
        seen.forget("never seen")
        assert seen.is_new("0")
        assert not seen.is_new(str(others))
