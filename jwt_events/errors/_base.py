"""What all errors have in common, and those about how the library is used."""

from __future__ import annotations


class JWTEventsError(Exception):
    """Base class of all exceptions of this library: catch it to catch them all.

    They can be pickled and copied, so that process pools pass them on: with their data, without traceback and cause.
    """

    def __reduce__(self) -> tuple[object, ...]:
        """Describe how to make an equal error without calling its constructor, which takes other arguments."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(cls: type[JWTEventsError], arguments: tuple[object, ...]) -> JWTEventsError:
    error = cls.__new__(cls)
    error.args = arguments
    return error


class InvalidOption(JWTEventsError, ValueError):
    """An option or URL that cannot work. Raised where it was passed, before anything is opened: correct the call.

    Attributes:
        option: the parameter's name.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class Closed(JWTEventsError, RuntimeError):
    """The object was closed, or is already running. Raised when it is used out of turn: correct the program."""


class WrongLoop(JWTEventsError, RuntimeError):
    """The object was opened in another event loop, or in another thread. Raised before anything is done.

    Open, use and close it in one event loop, or make one for each. From another thread, let its loop do the call:
    ``asyncio.run_coroutine_threadsafe(publisher.publish(event), loop)``.
    """


class Unavailable(JWTEventsError):
    """The answer is not known at the moment, and the caller did nothing wrong: reply with HTTP 503, not 401.

    Raise it, or a subclass, in your own function that verifies tokens when a service that it depends on is unreachable.

    Attributes:
        retry_after: seconds after which a retry is worthwhile; ``None`` if unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
