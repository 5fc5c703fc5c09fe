"""What the shapes of replies are made of: parsers and checks, each of which raises if a reply does not fit. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from jwt_events.transport._redis.commands import Argument, Command
from jwt_events.transport._redis.protocol import ErrorReply

Shape: TypeAlias = Callable[[Any, Command], Any]
"""Checks the reply to a command. Any exception that it raises means that the reply cannot be that of the command."""

_MAX_PART: Final = 2**64 - 1

_MAX_DIGITS: Final = 20
# Without the longest numbers, which are looked at one by one: most replies have many positions, and none of those.
_are_positions: Final = re.compile(rb"(?:[0-9]{1,19}+-[0-9]{1,19}+ )++").fullmatch


def position(reply: Any) -> str:
    """Parse a position in a stream; without an expression, as each match of one allocates a kilobyte."""
    milliseconds, _, sequence = reply.partition(b"-")
    if not milliseconds.isdigit() or not sequence.isdigit():
        raise ValueError
    if len(reply) > _MAX_DIGITS + 1:
        require(max(len(milliseconds), len(sequence)) <= _MAX_DIGITS and max(split_position(reply)) <= _MAX_PART)
    text: str = reply.decode()
    return text


def number(reply: Any) -> int:
    """Parse a count, such as of entries or of receivers."""
    if type(reply) is not int or reply < 0:
        raise TypeError
    return reply


def array(reply: Any) -> list[Any]:
    """Parse an array."""
    if type(reply) is not list:
        raise TypeError
    return reply


def require(fits: object) -> None:
    """Raise if something does not fit."""
    if not fits:
        raise ValueError


def split_position(reply: bytes) -> tuple[int, int]:
    """Return the two numbers of a position."""
    milliseconds, _, sequence = reply.partition(b"-")
    return int(milliseconds), int(sequence)


def check_positions(replies: Sequence[Any]) -> None:
    """Check many positions at once, which costs a third of looking at each."""
    if replies and not _are_positions(b" ".join(replies) + b" "):
        for reply in replies:
            position(reply)


def any_reply(reply: Any, command: Command) -> Any:
    """Return any reply but an error."""
    if type(reply) is ErrorReply:
        raise reply
    return reply


def exactly(text: bytes) -> Shape:
    """Return the shape of replies that are always the same."""

    def check(reply: Any, command: Command) -> Any:
        require(reply == text)
        return reply

    return check


def or_nil(shape: Shape) -> Shape:
    """Return the shape of replies that have this one, or are nil."""
    return lambda reply, command: None if reply is None else shape(reply, command)


def any_text(reply: Any, command: Command) -> Any:
    """Check a text."""
    require(type(reply) is bytes)
    return reply


def any_count(reply: Any, command: Command) -> Any:
    """Check a count."""
    return number(reply)


def require_text(value: Any) -> None:
    """Raise if a value is no text."""
    require(type(value) is bytes)


def encoded(argument: Argument) -> bytes:
    """Return an argument of a command as it is sent."""
    return argument if isinstance(argument, bytes) else str(argument).encode()


def by_subcommand(**shapes: Shape) -> Shape:
    """Return the shape of the replies to a command that has subcommands."""

    def check(reply: Any, command: Command) -> Any:
        return shapes.get(str(command[1]).lower(), any_reply)(reply, command)

    return check
