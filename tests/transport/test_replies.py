"""What the server said, read: an answer that cannot be one ends all belief in those behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jwt_events import ConnectionFailed, ServerRefused
from jwt_events.transport._redis.protocol import ErrorReply, Request
from jwt_events.transport._redis.replies import ReplyDecoder, ReplyParser, array, number, position, unchanged

_OTHER_KINDS: list[tuple[ReplyParser, Any]] = [
    *[(number, None), (number, b"1"), (number, []), (number, b"")],
    *[(array, None), (array, b"1"), (array, 1)],
    *[(position, None), (position, 1), (position, []), (position, b"\xff")],
]


def _answered(*answers: Any, commands: int | None = None) -> Request:
    question = Request([("XACK", "k")] * (commands or len(answers)), asyncio.get_running_loop())
    question.answers.extend(answers)
    return question


def _read(question: Request, reading: ReplyParser = unchanged) -> list[Any]:
    return ReplyDecoder("there:1", "k", secrets=["s3cret"]).read(question, reading)


class TestReadings:
    """What can be read as what."""

    @pytest.mark.parametrize(
        ("reading", "answer"),
        [(unchanged, None), (unchanged, b"x"), (unchanged, []), (number, 0), (array, []), (array, [1])],
    )
    async def test_as_it_is(self, reading: ReplyParser, answer: Any) -> None:
        """An answer of the right kind is what it is."""
        assert _read(_answered(answer, answer), reading) == [answer, answer]

    async def test_a_position(self) -> None:
        """A position is text."""
        assert _read(_answered(b"1-2"), position) == ["1-2"]

    @pytest.mark.parametrize(("reading", "answer"), _OTHER_KINDS)
    async def test_another_kind(self, reading: ReplyParser, answer: Any) -> None:
        """An answer of another kind is none, and it is not quoted."""
        (error,) = _read(_answered(answer), reading)
        assert isinstance(error, ConnectionFailed)
        assert (error.maybe_done, error.retryable) == (True, True)
        assert str(error) == "XACK at there:1 for 'k' failed: no answer in time"  # there is no socket here


class TestBelief:
    """What is believed of the rest."""

    async def test_refusals(self) -> None:
        """What was refused says so in its place, without a password, and the others stand."""
        first, refused, last = _read(_answered(1, ErrorReply("NOPERM of s3cret"), 2), number)
        assert (first, last) == (1, 2)
        assert isinstance(refused, ServerRefused)
        assert str(refused) == "XACK at there:1 for 'k' refused: NOPERM of ***"

    async def test_behind_one_that_makes_no_sense(self) -> None:
        """Nothing behind it is believed, not even a refusal; what came before is."""
        first, *rest = _read(_answered(1, [], 2, ErrorReply("ERR")), number)
        assert first == 1
        assert [type(error) for error in rest] == [ConnectionFailed] * 3

    async def test_that_are_missing(self) -> None:
        """What was not answered may have been done all the same."""
        first, error = _read(_answered(1, commands=2), number)
        assert first == 1
        assert isinstance(error, ConnectionFailed)
        assert error.maybe_done
