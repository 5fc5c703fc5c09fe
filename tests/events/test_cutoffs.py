"""Cutoffs in the future: refused by the constructor, and in force if another program published one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from jwt_events import Event, EventType, InvalidEvent, SessionDestroyed, TokenRevoked
from jwt_events.events import make_event
from jwt_events.publisher._validation import check_retention
from tests.support.examples import received

DAY = timedelta(days=1)
AHEAD = [timedelta(minutes=6), timedelta(days=1), timedelta(days=30_000)]
WIDE = [{"session_id": "s"}, {"user_id": "u"}, {"client_id": "c"}, {"user_id": "u", "client_id": "c"}]
_ahead = pytest.mark.parametrize("ahead", AHEAD, ids=str)
_wide = pytest.mark.parametrize("target", WIDE, ids="-".join)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class TestConstructed:
    """The constructor and all that uses it."""

    @_ahead
    @_wide
    @pytest.mark.parametrize("convert", [lambda instant: instant, datetime.timestamp], ids=["datetime", "seconds"])
    def test_issued_before(
        self, target: dict[str, Any], ahead: timedelta, convert: Callable[[datetime], object]
    ) -> None:
        """A cutoff more than five minutes ahead is refused by its name, with what to do instead."""
        fields: dict[str, Any] = target | {"issued_before": convert(now() + ahead)}
        with pytest.raises(ValidationError, match=r"five minutes ahead.*: revoke those that exist") as refused:
            TokenRevoked(**fields)
        assert [problem["loc"] for problem in refused.value.errors()] == [("issued_before",)]
        with pytest.raises(InvalidEvent, match=r"^issued_before: "):
            make_event(EventType.TOKEN_REVOKED, fields)

    @_ahead
    @_wide
    def test_occurred_at(self, target: dict[str, Any], ahead: timedelta) -> None:
        """The time of the event is limited where it is the cutoff."""
        with pytest.raises(ValidationError, match="occurred_at is more than five minutes ahead"):
            TokenRevoked(**target, occurred_at=now() + ahead)
        with pytest.raises(ValidationError, match="five minutes ahead"):
            SessionDestroyed(session_id="s", occurred_at=now() + ahead)
        TokenRevoked(**target, occurred_at=now() + ahead, issued_before=now())

    @_wide
    def test_as_clocks_differ(self, target: dict[str, Any]) -> None:
        """A cutoff up to five minutes ahead is accepted, and one in the past."""
        for ahead in (timedelta(minutes=4), timedelta(0), -DAY):
            fields: dict[str, Any] = {"issued_before": now() + ahead, "occurred_at": now() + ahead}
            assert TokenRevoked(**target, **fields).issued_before == fields["issued_before"]
        assert SessionDestroyed(session_id="s", occurred_at=now() + timedelta(minutes=4)).subject == "s"

    @_ahead
    def test_beside_a_token(self, ahead: timedelta) -> None:
        """A token that is revoked by its id has no cutoff, so nothing is refused."""
        assert TokenRevoked(token_id="t", issued_before=now() + ahead, occurred_at=now() + ahead).subject == "t"


class TestReceived:
    """What another program published."""

    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            (EventType.TOKEN_REVOKED, {"user_id": "u", "issued_before": "2100-01-01T00:00:00Z"}),
            (EventType.TOKEN_REVOKED, {"user_id": "u"}),
            (EventType.SESSION_DESTROYED, {"session_id": "s"}),
        ],
    )
    def test_is_not_dropped(self, kind: EventType, data: dict[str, str]) -> None:
        """A cutoff in the far future is received."""
        event = received(kind, datetime(2100, 1, 1, tzinfo=UTC), **data)
        assert isinstance(event, TokenRevoked | SessionDestroyed)
        assert "2100-01-01" in event.covers


class TestRetention:
    """Until when a stream must keep the event."""

    @pytest.mark.parametrize(
        ("fields", "needed"),
        [
            ({"user_id": "u"}, None),
            ({"user_id": "u", "expires_at": 50}, 50),
            ({"user_id": "u", "issued_before": 70}, 70),
            ({"user_id": "u", "issued_before": 70, "expires_at": 50}, 70),
            ({"user_id": "u", "issued_before": 50, "expires_at": 70}, 70),
            ({"token_id": "t", "issued_before": 70, "expires_at": 50}, 50),
            ({"token_id": "t", "issued_before": 70}, None),
        ],
    )
    def test_needed_until(self, fields: dict[str, Any], needed: int | None) -> None:
        """Until its cutoff, and until it expires."""
        until = TokenRevoked(**fields).needed_until
        assert (None if until is None else until.timestamp()) == needed

    def test_a_cutoff_that_outlives_the_stream(self) -> None:
        """A stream that forgets the event before its cutoff refuses it."""
        event: Event = TokenRevoked(user_id="u", issued_before=now() + timedelta(minutes=1))
        check_retention(event, timedelta(minutes=2), now())
        with pytest.raises(InvalidEvent):
            check_retention(event, timedelta(seconds=3), now())
