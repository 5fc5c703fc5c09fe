"""Tests of `MemoryTransport` beyond the conformance suite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jwt_events import InvalidOption, MemoryTransport, OutlivesRetention, Publisher, TokenRevoked
from jwt_events.testing import Listener


@pytest.mark.parametrize(
    ("option", "value"),
    [*(("start", value) for value in ("", "old", None, 0)), *(("retention", value) for value in (0, 60, timedelta(0)))],
)
def test_an_option_that_cannot_work_is_refused(option: str, value: Any) -> None:
    """An invalid option raises when it is given, and the error names it."""
    with pytest.raises(InvalidOption, match=rf"^{option}: "):
        MemoryTransport(**{option: value})


async def test_it_refuses_what_a_stream_would() -> None:
    """With a retention, an event that expires later is refused, as on a stream; without one, none is."""
    event = TokenRevoked(token_id="t", expires_at=datetime.now(UTC) + timedelta(days=2))
    async with Publisher(MemoryTransport(retention=timedelta(days=1))) as publisher:
        with pytest.raises(OutlivesRetention, match="retention"):
            await publisher.publish(event)
    async with Publisher(MemoryTransport()) as publisher:
        await publisher.publish(event)


async def test_each_object_is_a_bus_of_its_own() -> None:
    """Events do not pass from one object to another; the repr tells how many events there are."""
    transport, other = MemoryTransport(), MemoryTransport()
    async with Listener(transport) as listener, Publisher(other) as publisher, Publisher(transport) as here:
        await publisher.publish(TokenRevoked(token_id="1"))
        await here.publish(TokenRevoked(token_id="2"))
        await listener.hears("2")
    assert listener.subjects == ["2"]
    assert repr(transport) == repr(other) == "<MemoryTransport with 1 events>"
