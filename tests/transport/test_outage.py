"""What the log says of an outage: its beginning, now and then that it lasts, and what it cost."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from bench.ports import free_port
from jwt_events import ConnectionFailed
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from jwt_events.transport._redis.reconnecting import _Outage
from tests.faults.scenes import transport_of
from tests.support.records import Records, watching
from tests.support.waiting import wait_until

FAILED = "connection attempt failed"
AGAIN = "connected again"
ERROR = ConnectionFailed("no")


def told_at(records: Records, step: Callable[[float], None], *, until: float) -> list[float]:
    """Take a step each second, and return the seconds at which there was a line."""
    found = []
    for second in range(int(until)):
        before = len(records)
        step(float(second))
        found += [float(second)] * (len(records) - before)
    return found


class TestOutage:
    """Times are made up."""

    def test_growing_distances(self) -> None:
        """The first failure is told at once, later ones after twice the time each, and then once a minute."""
        with watching() as records:
            one = _Outage(logger)
            seconds = told_at(records, lambda now: one.fail(ERROR, now), until=400)
        assert seconds == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
        assert [fields["attempt"] for fields in records.of(FAILED, "WARNING")][:4] == [1, 2, 4, 8]

    def test_what_it_cost(self) -> None:
        """The end names the attempts and the seconds, once, and the next outage begins anew."""
        with watching() as records:
            one = _Outage(logger)
            for began in (100.0, 500.0):
                one.begin(ERROR, began)
                for second in range(20):
                    one.fail(ERROR, began + second)
                one.end(began + 20)
                one.end(began + 21)
        assert [(fields["attempts"], fields["seconds"]) for fields in records.of(AGAIN, "INFO")] == [(20, 20.0)] * 2
        assert len(records.of("connection lost", "WARNING")) == 2
        assert len(records.of(FAILED, "WARNING")) == 2 * 5

    def test_without_a_failure(self) -> None:
        """A connection that is there again at once costs nothing."""
        with watching() as records:
            one = _Outage(logger)
            one.begin(ERROR, 1.0)
            one.end(1.0)
        assert records.of(AGAIN) == []

    def test_flapping(self) -> None:
        """Connections that do not last are failed attempts of one outage: neither they nor their ends flood the log."""
        with watching() as records:
            one = _Outage(logger)

            def flap(now: float) -> None:
                one.end(now)
                one.go_on(ERROR, now)

            told_at(records, flap, until=600)
        assert records[0]["message"] == "connection lost"
        assert len(records) < 40


async def test_server_that_is_away(own_server: Callable[..., EmbeddedServer]) -> None:
    """A server that is away for a while is told once or twice, and its return with the price."""
    port = free_port()
    transport = transport_of("stream", f"redis://127.0.0.1:{port}", "k")
    with watching() as records:
        async with own_server(port=port):
            listener = Listener(transport)
            await listener.__aenter__()
        try:
            await wait_until(lambda: len(records.of(FAILED)) == 2)
            async with own_server(port=port):
                await wait_until(lambda: records.of(AGAIN, "INFO"))
        finally:
            await listener.__aexit__(None, None, None)
    (cost,) = records.of(AGAIN, "INFO")
    assert cost["attempts"] >= 2
    assert cost["seconds"] >= 1.0
    first, second = (fields["attempt"] for fields in records.of(FAILED, "WARNING")[:2])
    assert second - first >= 1
