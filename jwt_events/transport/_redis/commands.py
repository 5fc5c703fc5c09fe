"""Commands, and the bytes that are sent for them. hiredis packs them as RESP. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import hiredis

from jwt_events._internal.opaque import OpaqueStruct

Argument = bytes | str | int
Command = tuple[Argument, ...]
"""The words of a command."""

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows tuples of one only


class CommandTemplate:
    """What commands that differ in their last word have in common: packing one takes a third of the time.

    Args:
        words: the words before that one.

    Attributes:
        words: the same.
        format: makes the bytes of a command of the length of its last word, and that word.
    """

    def __init__(self, *words: bytes) -> None:
        self.words: Sequence[bytes] = words
        head = _pack((*words, b"")).removesuffix(b"$0\r\n\r\n")
        self.format: bytes = head.replace(b"%", b"%%") + b"$%d\r\n%b\r\n"

    def fill(self, last_words: Iterable[bytes]) -> list[FilledTemplate]:
        """Return the commands that end with these words; each is packed when it is sent, so that none is kept twice."""
        filled = []
        for word in last_words:  # for one, quicker than a comprehension
            filled.append(FilledTemplate(self, word))  # noqa: PERF401 - see above
        return filled


class FilledTemplate(OpaqueStruct, gc=False):
    """A command that is packed when it is sent; there is one for each event that is published.

    Attributes:
        template: its words but the last.
        word: the last.
    """

    template: CommandTemplate
    word: bytes


Commands = Sequence[Command | FilledTemplate]


def packed(command: Command | FilledTemplate | bytes) -> bytes:
    """Return a command as it is sent; one that is packed is returned unchanged."""
    if isinstance(command, FilledTemplate):
        word = command.word
        return command.template.format % (len(word), word)
    return command if isinstance(command, bytes) else _pack(command)


def words_of(command: Command | FilledTemplate) -> Command:
    """Return the words of a command."""
    return command if isinstance(command, tuple) else (*command.template.words, command.word)
