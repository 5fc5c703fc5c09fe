"""Decides when a failed operation is tried again. Pure: randomness is passed in, and nothing sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from jwt_events._internal import options
from jwt_events.errors import InvalidOption


def backoff(failures: int, *, initial: float, maximum: float, chance: Callable[[], float] = random.random) -> float:
    """Return the pause in seconds after a number of consecutive failures: exponential, with full jitter.

    Full jitter spreads a fleet that failed together over the whole interval instead of sending it back as one wave.
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return chance() * min(maximum, initial * 2.0 ** min(failures - 1, 60))


def pace(age: float, *, minimum: float, maximum: float, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds after which an outage of this age is looked at again: a fiftieth of it, jittered by half.

    So its end is noticed within a fiftieth of what it lasted, and a long one costs little.
    """
    return min(maximum, max(minimum, age / 50)) * (0.5 + chance() / 2)


@dataclass(frozen=True, slots=True)
class Retry:
    """Retry policy for handlers: how often and when a failed handler is called again.

    Attributes:
        attempts: maximum number of calls, including the first; 1 means no retry.
        initial: longest wait before the second call, in seconds; it doubles with each further call.
        maximum: upper limit of the wait, in seconds.
        jitter: wait a random part of that time instead of all of it.
        on: exceptions that are retried; a handler that raises any other fails at once.
    """

    attempts: int = 3
    initial: float = 0.1
    maximum: float = 5.0
    jitter: bool = True
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        options.count("attempts", self.attempts)
        options.seconds("initial", self.initial)
        options.seconds("maximum", self.maximum)
        if not isinstance(self.on, tuple) or not all(
            isinstance(cls, type) and issubclass(cls, BaseException) for cls in self.on
        ):
            raise InvalidOption("on", "must be a tuple of exception classes")

    def delay(self, attempt: int, error: BaseException, *, chance: Callable[[], float] = random.random) -> float | None:
        """Return the pause in seconds before the next attempt; ``None`` to give up.

        Args:
            attempt: number of the attempt that failed; 1 for the first call.
            error: the exception that it raised.
            chance: returns a random number from 0 to 1.
        """
        if attempt >= self.attempts or not isinstance(error, self.on):
            return None
        return backoff(
            attempt,
            initial=self.initial,
            maximum=self.maximum,
            chance=chance if self.jitter else lambda: 1.0,
        )
