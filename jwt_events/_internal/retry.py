"""When to try again. Pure: chance is passed in, nothing sleeps here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from jwt_events._internal import options
from jwt_events.errors import InvalidOption


def backoff(failures: int, *, initial: float, maximum: float, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait after so many failures in a row, in seconds: exponential, with full jitter.

    Full jitter spreads a fleet that failed together over the whole interval instead of sending it back as one wave.
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return chance() * min(maximum, initial * 2.0 ** min(failures - 1, 60))


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a handler that failed is called again.

    Attributes:
        attempts: how often at most, the first call included; 1 means never again.
        initial: the longest wait before the second call, in seconds; it doubles from call to call.
        maximum: what it doubles up to, in seconds.
        jitter: wait a random part of that time instead of all of it.
        on: which exceptions are worth another call; all others fail at once.
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
        """Return the seconds to wait after this attempt failed with this error; ``None`` to give up.

        Args:
            attempt: 1 for the first call.
            error: what it raised.
            chance: returns a number from 0 to 1.
        """
        if attempt >= self.attempts or not isinstance(error, self.on):
            return None
        return backoff(
            attempt,
            initial=self.initial,
            maximum=self.maximum,
            chance=chance if self.jitter else lambda: 1.0,
        )
