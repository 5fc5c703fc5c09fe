"""Publishing: what is accepted, what is refused, and what the caller learns."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import socket
import uuid
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter

from jwt_events import (
    Closed,
    Event,
    EventTooLarge,
    EventType,
    InvalidEvent,
    InvalidOption,
    MemoryTransport,
    Publisher,
    Receipt,
    RedisStream,
    RevocationList,
    SessionDestroyed,
    TokenRevoked,
    Transport,
    UnknownEvent,
)
from jwt_events.envelope import Envelope, decode, encode
from jwt_events.instrumentation import Observer
from jwt_events.testing import Listener
from tests.support.handling import soon
from tests.support.waiting import scaled, wait_until

EVENT = TokenRevoked(token_id="t", source="s")
SIZE = len(encode(Envelope(EVENT), source="s"))


async def sent(transport: Transport) -> list[Event]:
    """Return what was published on a transport that remembers."""
    payloads: list[bytes] = []
    async with transport.sender() as sender, transport.receiver(from_oldest=True) as receiver:
        await sender.send([b"the end"], within=scaled(5))
        while b"the end" not in payloads:
            payloads += [delivery.payload for delivery in (await receiver.receive()).deliveries]
    return [decode(payload).event for payload in payloads[:-1]]


class TestAccepted:
    """What can be published."""

    async def test_an_event_or_a_type_and_its_fields(self, url: str, key: str) -> None:
        """Both call shapes publish the same, and the receipt has the id of what arrives."""
        transport = RedisStream(url, key)
        fields: dict[str, Any] = {"session_id": "s", "user_id": "u", "expires_at": datetime(2026, 1, 1, tzinfo=UTC)}
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            receipts = [
                await publisher.publish(SessionDestroyed(**fields)),
                await publisher.publish(EventType.SESSION_DESTROYED, fields),
                await publisher.publish("session_destroyed", fields),
                await publisher.publish(EventType.SESSION_DESTROYED, fields | {"id": "my-id", "source": "me"}),
            ]
            for receipt in receipts:
                assert isinstance(receipt, Receipt)
                assert receipt.position is not None
                assert receipt.receivers is None
            await wait_until(lambda: len(listener.events) >= len(receipts), what="all of them")
        assert [event.id for event in listener.events] == [receipt.event_id for receipt in receipts]
        assert receipts[3].event_id == "my-id"
        plain = {
            (type(event), event.model_dump_json(exclude={"id", "occurred_at", "source"})) for event in listener.events
        }
        assert len(plain) == 1

    async def test_ids_are_made_and_sort_by_time(self) -> None:
        """An event without an id gets a UUIDv7, another one each time."""
        async with Publisher(MemoryTransport()) as publisher:
            ids = [(await publisher.publish("token_revoked", {"token_id": "t"})).event_id for _ in range(3)]
        assert [uuid.UUID(id_).version for id_ in ids] == [7, 7, 7]
        assert sorted(set(ids)) == ids

    @pytest.mark.parametrize(("of_publisher", "of_event"), [(None, None), ("mine", None), ("mine", "/its/own")])
    async def test_the_source_is_filled_in(self, of_publisher: str | None, of_event: str | None) -> None:
        """The event's source is sent, else the publisher's, else this host's name."""
        transport = MemoryTransport()
        async with Publisher(transport, source=of_publisher) as publisher:
            await publisher.publish(TokenRevoked(token_id="t", source=of_event))
        (event,) = await sent(transport)
        assert event.source == (of_event or of_publisher or socket.gethostname())

    async def test_many_may_be_none(self) -> None:
        """publish_many of nothing returns nothing and sends nothing; it takes any iterable."""
        transport = MemoryTransport()
        async with Publisher(transport) as publisher:
            assert await publisher.publish_many([]) == []
            assert await publisher.publish_many(iter(())) == []
            assert len(await publisher.publish_many(TokenRevoked(token_id=f"t{i}") for i in range(3))) == 3
        assert [event.subject for event in await sent(transport)] == ["t0", "t1", "t2"]

    async def test_an_event_of_exactly_the_largest_size(self) -> None:
        """The size limit is inclusive."""
        async with Publisher(MemoryTransport(), max_event_bytes=SIZE) as publisher:
            await publisher.publish(EVENT)

    async def test_an_unknown_event_can_be_passed_on(self) -> None:
        """What a subscriber received without understanding it can be published again as it was."""
        transport = MemoryTransport()
        event = UnknownEvent(type="jwt.session_paused.v1", source="s", data={"x": [1, None]})
        async with Publisher(transport) as publisher:
            await publisher.publish(event)
        assert await sent(transport) == [event]

    async def test_five_hundred_tasks_at_once(self, url: str, key: str) -> None:
        """One publisher serves many tasks at the same time: each gets its own receipt, and nothing is lost."""
        transport = RedisStream(url, key)
        events = [TokenRevoked(token_id=f"t{number}") for number in range(500)]
        async with Publisher(transport) as publisher:
            receipts = await asyncio.gather(*map(publisher.publish, events))
        assert [receipt.event_id for receipt in receipts] == [event.id for event in events]
        assert len({receipt.position for receipt in receipts}) == 500
        assert {event.id for event in await sent(transport)} == {event.id for event in events}


class TestReceipt:
    """What `publish` returns."""

    async def test_it_is_as_if_the_class_had_made_it(self, url: str, key: str) -> None:
        """It has every field, cannot be changed, and is what the standard library does with dataclasses."""
        async with Publisher(RedisStream(url, key)) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"))
        same = Receipt(receipt.event_id, receipt.position)
        assert receipt == same
        assert (repr(receipt), hash(receipt), asdict(receipt)) == (repr(same), hash(same), asdict(same))
        assert replace(receipt, replicas=2) == Receipt(receipt.event_id, receipt.position, None, 2)
        assert pickle.loads(pickle.dumps(receipt)) == receipt
        assert [field.name for field in fields(receipt)] == [*asdict(receipt)]
        with pytest.raises(FrozenInstanceError):
            receipt.position = "0-1"  # type: ignore[misc]  # what is tried
        with pytest.raises(FrozenInstanceError):
            del receipt.position
        assert [field.default for field in fields(receipt)[1:]] == [None] * 4
        reply = TypeAdapter(dict[str, Receipt]).dump_json({"receipt": receipt})  # as FastAPI serializes it
        assert json.loads(reply) == {"receipt": asdict(receipt)}
        assert Receipt(**json.loads(reply)["receipt"]) == receipt
        assert TypeAdapter(Receipt).json_schema()["required"] == ["event_id"]


class TestRefused:
    """What is refused, before anything is sent."""

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ((TokenRevoked(token_id="t"), {}), "payload: "),
            ((Event(type="x"),), "event: must be one of this library's classes"),
            (({"token_id": "t"},), "event: must be an Event or an EventType, not dict"),
            ((None,), "event: must be an Event or an EventType, not NoneType"),
            (("token_revoked",), "payload: must be a mapping"),
            ((EventType.TOKEN_REVOKED, [("token_id", "t")]), "payload: must be a mapping"),
            ((EventType.TOKEN_REVOKED, "token_id"), "payload: must be a mapping"),
            (("jwt.token_revoked.v1", {"token_id": "t"}), "event: is no known type; known are token_revoked, "),
            (("TOKEN_REVOKED", {"token_id": "t"}), "event: is no known type"),
            (
                (EventType.TOKEN_REVOKED, {"token_id": "t", "tokenid": "SECRET"}),
                "tokenid: is no field of TokenRevoked, .* token_id, ",
            ),
            ((EventType.TOKEN_REVOKED, {"token_id": 5}), "token_id: "),
            ((EventType.TOKEN_REVOKED, {"token_id": "t", 5: "SECRET"}), "payload: |5: "),
            ((EventType.TOKEN_REVOKED, {}), "payload: .*at least one of"),
            ((EventType.TOKEN_REVOKED, {"token_id": "t", "type": "key_rotated"}), "type: "),
            ((EventType.TOKEN_REVOKED, {"token_id": "SECRET.SECRET.SECRET"}), "token_id: .*publish its jti"),
            ((EventType.TOKEN_REVOKED, {"token_id": "t", "metadata": {"SECRET": float("nan")}}), "metadata"),
        ],
    )
    async def test_what_is_no_event(self, arguments: tuple[Any, ...], problem: str) -> None:
        """The error names the field and the problem, never the value; nothing is sent."""
        transport = MemoryTransport()
        async with Publisher(transport) as publisher:
            with pytest.raises(InvalidEvent, match=problem) as caught:
                await publisher.publish(*arguments)
        assert caught.value.problems
        assert "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert await sent(transport) == []

    async def test_what_is_too_large(self) -> None:
        """An event beyond the limit is refused with both sizes; nothing is sent."""
        transport = MemoryTransport()
        async with Publisher(transport, max_event_bytes=SIZE - 1) as publisher:
            with pytest.raises(EventTooLarge, match=f"{SIZE} bytes.*limit is {SIZE - 1}") as caught:
                await publisher.publish(EVENT)
        assert (caught.value.size, caught.value.limit) == (SIZE, SIZE - 1)
        assert await sent(transport) == []

    @pytest.mark.parametrize("events", [None, EVENT, 5, asyncio.sleep], ids=lambda events: type(events).__name__)
    async def test_not_many(self, events: Any) -> None:
        """What is no iterable of events is refused with its kind."""
        async with Publisher(MemoryTransport()) as publisher:
            with pytest.raises(
                InvalidEvent, match=f"events: must be an iterable of events, not {type(events).__name__}"
            ):
                await publisher.publish_many(events)

    async def test_one_of_many(self) -> None:
        """publish_many checks all before it sends the first."""
        transport = MemoryTransport()
        bad: Any = "no event"
        async with Publisher(transport, max_event_bytes=SIZE + 50) as publisher:
            with pytest.raises(InvalidEvent):
                await publisher.publish_many([EVENT, bad])
            with pytest.raises(EventTooLarge):
                await publisher.publish_many([EVENT, TokenRevoked(token_id="t", reason="x" * 500)])
        assert await sent(transport) == []

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("timeout", value) for value in (0, -1, float("nan"), float("inf"), "5", None, True)),
            *(("max_event_bytes", value) for value in (0, -1, 2**20 + 1, 2**21, 1.5, "1", None, True)),
            *(("source", value) for value in ("", "  ", 5, b"x", "x" * 513, "a\nb")),
        ],
    )
    async def test_an_option_that_cannot_work(self, option: str, value: Any) -> None:
        """Each option is checked where it is given, and named."""
        with pytest.raises(InvalidOption, match=f"^{option}: ") as caught:
            Publisher(MemoryTransport(), **{option: value})
        assert caught.value.option == option
        gc.collect()

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
    async def test_a_timeout_of_one_call(self, timeout: Any) -> None:
        """The timeout of a call is checked like that of the publisher, and nothing is sent."""
        transport = MemoryTransport()
        async with Publisher(transport) as publisher:
            with pytest.raises(InvalidOption, match=r"^timeout: "):
                await publisher.publish(EVENT, timeout=timeout)
            with pytest.raises(InvalidOption, match=r"^timeout: "):
                await publisher.publish_many([EVENT], timeout=timeout)
        assert await sent(transport) == []


class TestLife:
    """Opening and closing."""

    async def test_it_need_not_be_entered(self, url: str, key: str) -> None:
        """A publisher opens when it first publishes; aclose closes it."""
        transport = RedisStream(url, key)
        publisher = Publisher(transport)
        assert "new" in repr(publisher)
        await publisher.publish(EVENT)
        assert "open" in repr(publisher)
        await publisher.aclose()
        assert "closed" in repr(publisher)
        assert await sent(transport) == [EVENT]

    async def test_after_closing_nothing_is_published(self) -> None:
        """A closed publisher refuses everything."""
        transport = MemoryTransport()
        publisher = Publisher(transport)
        async with publisher:
            pass
        with pytest.raises(Closed):
            await publisher.publish(EVENT)
        with pytest.raises(Closed):
            await publisher.publish_many([EVENT])
        assert await sent(transport) == []

    def test_entered_again(self, url: str, key: str) -> None:
        """It may be entered again, also in another event loop, as applications are that tests start several times."""
        transport = RedisStream(url, key)
        publisher, revocations = Publisher(transport), RevocationList(transport)

        async def run(number: int) -> None:
            async with publisher, revocations:
                assert "open" in repr(publisher)
                token = {"jti": f"t{number}", "iat": 1}
                async with revocations.watch(token) as watch:
                    await publisher.publish(TokenRevoked(token_id=f"t{number}"))
                    await soon(watch.revoked.wait())
            with pytest.raises(Closed):
                await publisher.publish(EVENT)

        for number in range(3):
            asyncio.run(run(number))

    async def test_one_that_was_never_opened_can_be_closed(self) -> None:
        """Closing before anything was published is fine, and nothing is published then."""
        publisher = Publisher(RedisStream("redis://127.0.0.1:1"))
        await asyncio.gather(publisher.aclose(), publisher.aclose())
        with pytest.raises(Closed):
            await publisher.publish(EVENT, timeout=scaled(1))

    async def test_an_observer_that_fails_does_not_hold_up_the_end(self) -> None:
        """Whatever raises while it is told what became of an event, closing does not wait for that call for ever."""

        class Full(Observer):
            def published(self, *_: object) -> None:
                raise OSError("no space left on device")

        publisher = Publisher(MemoryTransport())
        publisher._observer = Full()
        with pytest.raises(OSError, match="no space left"):
            await publisher.publish(EVENT)
        async with asyncio.timeout(scaled(5)):
            await publisher.aclose()

    async def test_one_that_was_forgotten_is_named(self) -> None:
        """A publisher that was opened and dropped without closing warns of it."""
        forgotten = [Publisher(MemoryTransport())]
        await forgotten[0].publish(EVENT)
        resources = forgotten[0]._resources
        with pytest.warns(ResourceWarning, match=r"Publisher open.*not closed"):
            forgotten.clear()
        assert resources is not None
        await resources.aclose()
