"""`ReplyDecoder`: a reply of the wrong shape ends the trust in all replies after it."""

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


def _replied(*replies: Any, commands: int | None = None) -> Request:
    request = Request([("XACK", "k")] * (commands or len(replies)), asyncio.get_running_loop().create_future())
    request.replies.extend(replies)
    return request


def _decode(request: Request, parse: ReplyParser = unchanged) -> list[Any]:
    return ReplyDecoder("there:1", "k", secrets=["s3cret"]).decode(request, parse)


class TestParsers:
    """Which parser accepts which reply."""

    @pytest.mark.parametrize(
        ("parse", "reply"),
        [(unchanged, None), (unchanged, b"x"), (unchanged, []), (number, 0), (array, []), (array, [1])],
    )
    async def test_right_kind(self, parse: ReplyParser, reply: Any) -> None:
        """A reply of the right kind is returned unchanged."""
        assert _decode(_replied(reply, reply), parse) == [reply, reply]

    async def test_a_position(self) -> None:
        """A position is returned as text."""
        assert _decode(_replied(b"1-2"), position) == ["1-2"]

    @pytest.mark.parametrize(("parse", "reply"), _OTHER_KINDS)
    async def test_wrong_kind(self, parse: ReplyParser, reply: Any) -> None:
        """A reply of another kind becomes an error that does not quote it."""
        (error,) = _decode(_replied(reply), parse)
        assert isinstance(error, ConnectionFailed)
        assert (error.maybe_done, error.retryable) == (True, True)
        assert str(error) == "XACK at there:1 for 'k' failed: no answer in time"  # there is no socket here


class TestTrust:
    """Which of several replies are trusted."""

    async def test_error_replies(self) -> None:
        """An error reply becomes an error in its place, without a password; the other replies are returned."""
        first, refused, last = _decode(_replied(1, ErrorReply("NOPERM of s3cret"), 2), number)
        assert (first, last) == (1, 2)
        assert isinstance(refused, ServerRefused)
        assert str(refused) == "XACK at there:1 for 'k' refused: NOPERM of ***"

    async def test_after_a_wrong_kind(self) -> None:
        """No reply after one of the wrong kind is trusted, not even an error reply; earlier ones are."""
        first, *rest = _decode(_replied(1, [], 2, ErrorReply("ERR")), number)
        assert first == 1
        assert [type(error) for error in rest] == [ConnectionFailed] * 3

    async def test_missing(self) -> None:
        """A command without a reply may have been carried out."""
        first, error = _decode(_replied(1, commands=2), number)
        assert first == 1
        assert isinstance(error, ConnectionFailed)
        assert error.maybe_done
