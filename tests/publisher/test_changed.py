"""Events that were changed after their construction: what is published was validated as it is now."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    Event,
    InvalidEvent,
    InvalidOption,
    KeyRotated,
    MemoryTransport,
    Publisher,
    TokenRevoked,
    UnknownEvent,
)
from jwt_events.envelope import decode, encode_event
from jwt_events.publisher._validation import event_from
from tests.support.examples import COMPACT_JWT, EVENTS, all_that_is_said
from tests.support.strategies import known_events

Change = Callable[[Event, Mapping[str, Any]], Event]


def copied(event: Event, values: Mapping[str, Any]) -> Event:
    """Copy with other values, as pydantic offers it."""
    return event.model_copy(update=values)


def forced(event: Event, values: Mapping[str, Any]) -> Event:
    """Set attributes although the event is frozen."""
    for name, value in values.items():
        object.__setattr__(event, name, value)
    return event


def updated(event: Event, values: Mapping[str, Any]) -> Event:
    """Write into the dictionary behind the attributes."""
    event.__dict__.update(values)
    return event


def constructed(event: Event, values: Mapping[str, Any]) -> Event:
    """Construct without validation."""
    return type(event).model_construct(**{**event.__dict__, **values})


def pickled(event: Event, values: Mapping[str, Any]) -> Event:
    """Take a changed copy through a pickle."""
    back: Event = pickle.loads(pickle.dumps(copied(event, values)))
    return back


CHANGES: list[Change] = [copied, forced, updated, constructed, pickled]


class _Hostile:
    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]  # it cannot be compared, so it cannot be hashed


_NO_TEXT: list[Any] = [None, _Hostile(), {"a": 1}]
_NO_METADATA: list[Any] = [None, [], {1: 2}, {"a": {1, 2}}, {"a": float("nan")}, {COMPACT_JWT: 1}]
_BAD: list[tuple[str, Any]] = [
    *(("user_id", value) for value in (42, UUID(int=1), "", " ", b"alice", ["a"], "a" * 513, COMPACT_JWT, "\ud800")),
    *(("user_id", value) for value in _NO_TEXT),
    *(("occurred_at", value) for value in (datetime(2026, 1, 1), "yesterday", None, 1e12)),  # noqa: DTZ001 - the point
    *(("issued_before", value) for value in (datetime(2026, 1, 1), "2026-03-01T12:00:00Z", -1)),  # noqa: DTZ001 - same
    *(("id", value) for value in (7, None, "", COMPACT_JWT)),
    *(("type", value) for value in ("session_created", None, 5)),
    *(("source", value) for value in (5, "", "a name", COMPACT_JWT)),
    *(("reason", value) for value in (COMPACT_JWT, "", "a" * 1_025, 5)),
    *(("metadata", value) for value in _NO_METADATA),
]


async def refused(event: Event) -> InvalidEvent:
    """Return the error with which both ways to publish refuse an event; nothing may have been sent."""
    transport = MemoryTransport(start="all")
    async with Publisher(transport, source="tests") as publisher:
        with pytest.raises(InvalidEvent) as one:
            await publisher.publish(event)
        with pytest.raises(InvalidEvent):
            await publisher.publish_many([TokenRevoked(token_id="before"), event])
    async with transport.receiver(from_oldest=True, poll_timeout=0.001) as receiver:
        assert (await receiver.receive()).deliveries == []
    return one.value


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
class TestRefused:
    """A change that the constructor would refuse is an `InvalidEvent`, before anything is sent."""

    @pytest.mark.parametrize(("name", "value"), _BAD, ids=lambda part: repr(part)[:30])
    async def test_a_bad_value(self, change: Change, name: str, value: Any) -> None:
        """One value is not valid, however it got there; the error never quotes it."""
        error = await refused(change(TokenRevoked(user_id="alice"), {name: value}))
        assert COMPACT_JWT not in all_that_is_said(error)

    async def test_an_unknown_field(self, change: Change) -> None:
        """A field that the class does not have is refused, except where pydantic drops it."""
        event = change(TokenRevoked(user_id="alice"), {"tenant": "x"})
        if change is not constructed:
            assert (await refused(event)).problems[0][0] == "tenant"

    async def test_what_compares_as_equal(self, change: Change) -> None:
        """A value that equals a valid one is still not valid."""
        await refused(change(KeyRotated(key_id="k", compromised=True), {"compromised": 1}))
        await refused(change(KeyRotated(key_id="k"), {"compromised": 0.0}))

    async def test_an_unknown_event(self, change: Change) -> None:
        """Data and type are checked like everything else."""
        event = UnknownEvent(type="jwt.other.v1", data={"a": 1})
        for values in ({"type": ""}, {"type": COMPACT_JWT}, {"data": {"a": COMPACT_JWT}}, {"data": {"a": object()}}):
            await refused(change(copy.copy(event), values))


class TestContent:
    """Dictionaries can be changed although the event is frozen."""

    @pytest.mark.parametrize(
        "value",
        [float("nan"), COMPACT_JWT, object(), "\ud800", {1}, 2**80, datetime.now(UTC), b"", (1,)],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("metadata", [{}, {"a": 1}], ids=["empty", "some"])
    async def test_metadata(self, metadata: dict[str, Any], value: Any) -> None:
        """Metadata that was changed is validated again, at every depth."""
        for content in (value, [{"y": value}]):
            event = TokenRevoked(token_id="t", metadata=dict(metadata))
            event.metadata["x"] = content  # type: ignore[assignment]  # the point
            await refused(event)

    async def test_data_of_an_unknown_event(self) -> None:
        """Data too, also when it contains itself."""
        event = UnknownEvent(type="jwt.other.v1", data={"a": 1})
        event.data["a"] = event.data
        await refused(event)

    async def test_a_field_is_missing(self) -> None:
        """A field that was removed is named."""
        for name in ("id", "occurred_at", "metadata"):
            event = TokenRevoked(token_id="t")
            del event.__dict__[name]
            assert (await refused(event)).problems == ((name, "is missing"),)

    async def test_a_field_has_another_name(self) -> None:
        """A value under another name is refused, although the values are the same as before."""
        event = TokenRevoked(token_id="t")
        event.__dict__["tenant"] = event.__dict__.pop("reason")
        assert (await refused(event)).problems == (("reason", "is missing"),)

    @pytest.mark.parametrize("data", [{"metadata": {"a": 1}}, {"deep": COMPACT_JWT}, {"a": "\ud800"}, {"a": 2**80}])
    def test_an_unknown_event_is_refused_at_once(self, data: dict[str, Any]) -> None:
        """The constructor refuses what must not be sent."""
        with pytest.raises(ValueError, match="data"):
            UnknownEvent(type="jwt.other.v1", data=data)

    @pytest.mark.parametrize("kind", ["jwt.token_revoked.v1", "token_revoked"])
    async def test_a_known_type_in_disguise(self, kind: str) -> None:
        """An unknown event of a known type would reach readers as something else, or as nothing."""
        assert (await refused(UnknownEvent(type=kind, data={"token_id": 5}))).problems[0][0] == "type"


class TestAccepted:
    """What the constructor would accept is published as it is now."""

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
    async def test_a_good_value(self, change: Change) -> None:
        """The changed value is what readers get."""
        transport = MemoryTransport(start="all")
        later = datetime.now(timezone(timedelta(hours=1))) + timedelta(hours=1)
        event = change(TokenRevoked(user_id="alice"), {"user_id": "bob", "expires_at": later, "metadata": {"a": [1]}})
        async with Publisher(transport, source="tests") as publisher:
            receipt = await publisher.publish(event)
        async with transport.receiver(from_oldest=True, poll_timeout=0.001) as receiver:
            (delivery,) = (await receiver.receive()).deliveries
        found = decode(delivery.payload).event
        assert isinstance(found, TokenRevoked)
        assert (found.id, found.user_id, found.expires_at, found.metadata) == (
            receipt.event_id,
            "bob",
            later,
            {"a": [1]},
        )

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_nothing_is_done_twice(self, event: Event) -> None:
        """An event that nobody touched is not validated again."""
        plain = type(event)(**{name: value for name, value in event if name not in {"metadata", "type"}})
        assert (event_from(plain, None) is plain) == (not isinstance(event, KeyRotated))
        assert event_from(plain, None) == plain

    @given(known_events, known_events, st.data())
    def test_readers_accept_what_is_accepted(self, event: Event, other: Event, data: st.DataObject) -> None:
        """After any change an event is refused, or it is what every reader decodes."""
        name = data.draw(st.sampled_from(sorted(event.__dict__)))
        value = data.draw(st.sampled_from([*other.__dict__.values(), 0, 1, True, b"a", {"a": b"b"}, 1.5e9, "\ud800"]))
        changed = data.draw(st.sampled_from(CHANGES))(event.model_copy(), {name: value})
        try:
            accepted = event_from(changed, None)
        except InvalidEvent:
            return
        assert decode(encode_event(accepted, source="s")).event == accepted.model_copy(
            update={"source": accepted.source or "s"}
        )


class TestSource:
    """A source is a URI-reference, as CloudEvents demands."""

    @pytest.mark.parametrize(
        "source",
        [
            *(
                "auth",
                "auth.example",
                "my_host-1",
                "/services/auth",
                "https://auth.example:8443/a?b=c#d",
                "//host/path",
            ),
            *("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "mailto:ops@example.com", "a%20b"),
            *("http://[::1]:80/", "auth:8080", "./10.0.0.1:80", "?a", "#a"),
        ],
    )
    async def test_accepted(self, source: str) -> None:
        """Host names, paths, URLs and URNs are."""
        async with Publisher(MemoryTransport(), source=source) as publisher:
            await publisher.publish(TokenRevoked(token_id="t"))
            await publisher.publish(TokenRevoked(token_id="t", source=source))

    @pytest.mark.parametrize(
        "source",
        [
            *("a name", "<a>", "a%2", "%zz", "\u00fcmlaut", "10.0.0.1:80", "::1", "a#b#c", "http://[", 'a"b', "a\\b"),
            *("http://a b/", "http://h:port/", "1a:b", "{a}", "a^b", "`", "a|b", COMPACT_JWT, f"Bearer {COMPACT_JWT}"),
        ],
    )
    async def test_refused(self, source: str) -> None:
        """Anything else is refused where it is given, and a whole token is not quoted."""
        with pytest.raises(InvalidOption) as option:
            Publisher(MemoryTransport(), source=source)
        assert source not in all_that_is_said(option.value) or len(source) < 20
        if COMPACT_JWT not in source:
            error = await refused(TokenRevoked(token_id="t", source=source))
            assert error.problems[0][0] == "source"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
async def test_a_derived_class(event: Event) -> None:
    """An event of a class derived from one of ours is refused, also one that its constructor has just validated."""
    derived = type("Derived", (type(event),), {"__module__": __name__})
    made = derived(**{name: getattr(event, name) for name in event.model_fields_set})
    async with Publisher(MemoryTransport()) as publisher:
        for publish in (publisher.publish(made), publisher.publish_many([made])):
            with pytest.raises(InvalidEvent, match="not a class derived from them"):
                await publish
