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
        head: a format of what is sent before the last word; its argument is the length of that word.
    """

    def __init__(self, *words: bytes) -> None:
        self.words: Sequence[bytes] = words
        head = _pack((*words, b"")).removesuffix(b"$0\r\n\r\n")
        self.head: bytes = head.replace(b"%", b"%%") + b"$%d\r\n"

    def fill(self, last_words: Iterable[bytes]) -> list[FilledTemplate]:
        """Return the commands that end with these words. What may change is copied, and what is not bytes refused.

        Raises:
            TypeError: a word is not bytes.
        """
        filled = []
        for word in last_words:  # for one, quicker than a comprehension
            fixed = word if type(word) is bytes else bytes(memoryview(word))
            filled.append(FilledTemplate(self, fixed))
        return filled


class FilledTemplate(OpaqueStruct, gc=False):
    """A command that is packed when it is sent, so that none is kept twice: there is one for each event.

    Attributes:
        template: its words but the last.
        word: the last.
    """

    template: CommandTemplate
    word: bytes


Commands = Sequence[Command | FilledTemplate]


def packed(commands: Iterable[Command | FilledTemplate | bytes]) -> bytes:
    """Return commands as they are sent; those that are packed already are taken as they are."""
    pieces: list[bytes] = []
    for command in commands:
        if isinstance(command, FilledTemplate):  # so that its word, which may be large, is copied only once
            word = command.word
            pieces += (command.template.head % len(word), word, b"\r\n")
        else:
            pieces.append(command if isinstance(command, bytes) else _pack(command))
    return b"".join(pieces)


def words_of(command: Command | FilledTemplate) -> Command:
    """Return the words of a command."""
    return command if isinstance(command, tuple) else (*command.template.words, command.word)
