"""Conformance tests with invalid messages: each is counted, and the next event is handled."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol

import pytest

from jwt_events.events import Event, TokenRevoked
from jwt_events.publisher import Publisher
from jwt_events.testing._listener import Listener
from jwt_events.testing._waiting import eventually, scaled
from jwt_events.transport.base import Sent, Transport

SECRET = "s3cret-in-a-payload"
GOOD = {
    "specversion": "1.0",
    "id": f"id-{SECRET}",
    "source": SECRET,
    "type": "jwt.token_revoked.v1",
    "time": "2026-11-22T20:00:00Z",
    "data": {"token_id": SECRET},
}


def altered(**members: Any) -> bytes:
    """Return the valid message with some members replaced, or omitted if ``None``."""
    return json.dumps({name: value for name, value in (GOOD | members).items() if value is not None}).encode()


POISON = {
    "empty": b"",
    "not UTF-8": b'{"id":"\xff\xfe' + SECRET.encode(),
    "UTF-16": altered().decode().encode("utf-16"),
    "not JSON": altered()[:-3],
    "an array": b"[]",
    "an empty object": b"{}",
    "text": json.dumps(SECRET).encode(),
    "null": b"null",
    "wrong specversion": altered(specversion="0.3"),
    "10 MB of brackets": b"[" * 10_000_000,
    "deep": b"[" * 100_000,
    "duplicate key": altered()[:-1] + b', "id": "another"}',
    "duplicate key inside": altered().replace(b'"token_id"', b'"token_id": "another", "token_id"'),
    "NaN": altered(data={"token_id": SECRET, "metadata": {"x": float("nan")}}),
    "infinite": altered(data={"token_id": SECRET, "metadata": {"x": 1}}).replace(b'"x": 1', b'"x": 1e999'),
    "huge integer": b'{"id":' + b"9" * 10_000 + b"}",
    "lone surrogate": altered(id="\ud800"),
    "data not an object": altered(data=[SECRET]),
    "missing id": altered(id=None),
    "id not text": altered(id=7),
    "missing type": altered(type=None),
    "no time": altered(time=SECRET),
    "time without a zone": altered(time="2026-11-22T20:00:00"),
    "time before all time": altered(time="0001-01-01T00:00:00+23:59"),
    "event without a subject": altered(data={}),
    "a whole token": altered(data={"token_id": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}),
}


async def send(transport: Transport, payload: bytes) -> None:
    """Send bytes as a message."""
    async with transport.sender() as sender:
        (outcome,) = await sender.send([payload], within=scaled(5))
    assert isinstance(outcome, Sent)


class MakeTransport(Protocol):
    """Function that returns a transport with a destination of the test's own."""

    def __call__(self, name: str = "", *, start: Literal["new", "all"] = "new") -> Transport:
        """Return the transport.

        Args:
            name: suffix of the destination: each suffix is a different channel or key.
            start: where a receiver starts, on a durable transport.
        """
        ...


class PoisonConformance:
    """Part of `TransportConformance` that sends invalid messages."""

    @pytest.fixture
    def make_transport(self) -> MakeTransport:
        """Return a `MakeTransport`; to be overridden."""
        raise NotImplementedError("give the class a fixture `make_transport`; see jwt_events.testing.conformance")

    @pytest.mark.parametrize("payload", POISON.values(), ids=POISON.keys())
    async def test_poison_is_counted(self, make_transport: MakeTransport, payload: bytes) -> None:
        """An invalid message is counted once, no handler sees it, and the next event is handled."""
        transport = make_transport()
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            await send(transport, payload)
            await publisher.publish(TokenRevoked(token_id="good"))
            await listener.hears("good", within=3.0)
            stats = listener.subscriber.stats
        assert (stats.received, stats.decode_errors, stats.duplicates) == (2, 1, 0)
        assert listener.subjects == ["good"]
        assert listener.gaps == []

    async def test_an_unknown_type_goes_to_handlers_of_every_event(self, make_transport: MakeTransport) -> None:
        """An event of an unknown type is not an error; only handlers of every event are called with it."""
        transport = make_transport()
        typed: list[Event] = []
        listener = Listener(transport)
        listener.subscriber.on(TokenRevoked)(typed.append)
        async with listener, Publisher(transport) as publisher:
            await send(transport, altered(type="jwt.session_paused.v1", data={"x": [1]}))
            await publisher.publish(TokenRevoked(token_id="good"))
            await listener.hears("good")
            await eventually(lambda: typed)
            stats = listener.subscriber.stats
        assert [str(event.type) for event in listener.events] == ["jwt.session_paused.v1", "token_revoked"]
        assert [event.subject for event in typed] == ["good"]
        assert stats.decode_errors == 0

    async def test_the_same_event_twice_is_handled_once(self, make_transport: MakeTransport) -> None:
        """A second delivery with the same id is counted as a duplicate."""
        transport = make_transport()
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            event = TokenRevoked(token_id="once")
            await publisher.publish(event)
            await publisher.publish(event)
            await publisher.publish(TokenRevoked(token_id="last"))
            await listener.hears("last")
            stats = listener.subscriber.stats
        assert listener.subjects == ["once", "last"]
        assert stats.duplicates == 1
