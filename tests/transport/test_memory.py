"""Tests of `MemoryTransport` beyond the conformance suite."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jwt_events import InvalidOption, MemoryTransport, OutlivesRetention, Publisher, RevocationList, TokenRevoked
from jwt_events.testing import Listener
from tests.support.handling import soon
from tests.support.records import recorded
from tests.support.waiting import wait_until


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


def test_one_event_loop_after_the_other() -> None:
    """What was closed may be opened in another event loop, where it waits for events as before, without an error."""
    transport = MemoryTransport()
    revocations = RevocationList(transport)

    async def run(number: int) -> None:
        async with revocations, Publisher(transport) as publisher, revocations.watch({"jti": str(number)}) as watch:
            await wait_until(lambda: revocations._view.current_as_of > began + 0.2, what="a read that has waited")
            await publisher.publish(TokenRevoked(token_id=str(number)))
            await soon(watch.revoked.wait())

    with recorded() as records:
        for number in range(3):
            began = time.monotonic()
            asyncio.run(run(number))
    assert [record["message"] for record in records if record["level"].name in ("WARNING", "ERROR")] == []


async def test_each_object_is_a_bus_of_its_own() -> None:
    """Events do not pass from one object to another; the repr tells how many events there are."""
    transport, other = MemoryTransport(), MemoryTransport()
    async with Listener(transport) as listener, Publisher(other) as publisher, Publisher(transport) as here:
        await publisher.publish(TokenRevoked(token_id="1"))
        await here.publish(TokenRevoked(token_id="2"))
        await listener.hears("2")
    assert listener.subjects == ["2"]
    assert repr(transport) == repr(other) == "<MemoryTransport with 1 events>"
