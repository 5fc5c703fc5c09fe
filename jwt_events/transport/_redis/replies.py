"""What the server said, read, and what went wrong, in our words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, TypeAlias

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.errors import map_error, refusal
from jwt_events.transport._redis.protocol import Command, ErrorReply, Request

ReplyParser: TypeAlias = Callable[[Any], Any]
"""Turns an answer into what it says. Whatever it raises means that this cannot be the answer to what was asked."""


def unchanged(answer: Any) -> Any:
    """Take an answer as it is; a refusal is none."""
    if type(answer) is ErrorReply:
        raise answer
    return answer


def number(answer: Any) -> int:
    """Read a number, of things that were done or of those who got something."""
    return index(answer)


def array(answer: Any) -> list[Any]:
    """Read an array."""
    if type(answer) is not list:
        raise TypeError
    return answer


def position(answer: Any) -> str:
    """Read a position in a stream."""
    return str(answer, "ascii")


class ReplyDecoder:
    """Reads answers, and tells of errors without a password in them.

    Args:
        address: the server.
        destination: the channel or key that messages name; empty for none.
        secrets: texts that no message may contain.
    """

    def __init__(self, address: str, destination: str, *, secrets: Sequence[str]) -> None:
        self._address = address
        self._destination = destination
        self._secrets = secrets

    def read(self, question: Request, reading: ReplyParser = unchanged) -> list[Any]:
        """Return what the answers say, an error in the place of each that is none.

        An answer that cannot be read belongs to another question: the two sides are out of step. So the socket is torn
        down, and nothing is believed any more that was not read before, to whichever question.
        """
        if question.wire is not None and question.wire.is_distrusted:
            question.answers.clear()
        elif len(question.answers) == len(question.commands):
            try:
                return list(map(reading, question.answers))
            except Exception:  # noqa: BLE001, S110 - the server, or what stands for it, may answer anything
                pass
        return self._read_each(question, reading)

    def _read_each(self, question: Request, reading: ReplyParser) -> list[Any]:
        read: list[Any] = []
        for command, answer in zip(question.commands, question.answers, strict=False):
            if type(answer) is ErrorReply:
                read.append(error := self.refusal(answer, _name(command)))
                # It was a primary once: whoever connects again may find the one that is now.
                if error.code == "READONLY" and question.wire is not None:
                    question.wire.abort()
                continue
            try:
                read.append(reading(answer))
            except Exception:  # noqa: BLE001 - see above
                if question.wire is not None:
                    question.wire.distrust()
                break
        if missing := len(question.commands) - len(read):
            failure = (question.wire and question.wire.failure) or TimeoutError()
            read += [self.failure(failure, _name(question.commands[0]), maybe_done=True)] * missing
        return read

    def failure(self, error: Exception, doing: str, *, maybe_done: bool) -> TransportError:
        """Say what went wrong with a connection."""
        return map_error(error, self._place(doing), secrets=self._secrets, maybe_done=maybe_done)

    def refusal(self, answer: ErrorReply, doing: str) -> ServerRefused:
        """Say what the server refused."""
        return refusal(str(answer), self._place(doing), secrets=self._secrets)

    def _place(self, doing: str) -> str:
        return f"{doing} at {self._address}" + (f" for {self._destination!r}" if self._destination else "")


def _name(command: Command) -> str:
    word = command[0]
    return word.decode() if isinstance(word, bytes) else str(word)
