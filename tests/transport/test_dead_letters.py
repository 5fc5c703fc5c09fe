"""Dead letters: deliveries that were given up are kept with the reason, listed, replayed and purged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    Closed,
    DeadLetter,
    DeadLetters,
    Event,
    InvalidOption,
    MemoryTransport,
    RedisStream,
    Retry,
    RevocationList,
    Subscriber,
    Verdict,
)
from jwt_events.envelope import decode, encode_event
from jwt_events.testing import Listener
from jwt_events.transport._redis.connection import Connector
from tests.support.examples import revoked
from tests.support.handling import Gate, publish
from tests.support.raw import call, entries
from tests.support.waiting import wait_until

AT_ONCE = Retry(attempts=3, initial=0.001, maximum=0.002)


@pytest.fixture
def make(url: str, key: str) -> Callable[..., RedisStream]:
    """Makes a `RedisStream`, with a group by default."""

    def make(consumer: str | None = None, **options: Any) -> RedisStream:
        return RedisStream(url, key, **{"group": "g", "consumer": consumer, "start": "all"} | options)

    return make


Make = Callable[..., RedisStream]


@pytest.fixture
async def dead(make: Make) -> AsyncIterator[DeadLetters]:
    """The dead letters of the stream."""
    async with DeadLetters(make()) as dead:
        yield dead


class Failing:
    """A handler that fails until the test repairs it."""

    def __init__(self) -> None:
        self.calls: list[str | None] = []
        self.succeeded: list[str | None] = []
        self.fails = True

    async def __call__(self, event: Event) -> None:
        """Handle an event."""
        self.calls.append(event.subject)
        if self.fails:
            raise ValueError(f"a secret: {event.subject}")
        self.succeeded.append(event.subject)


def failing(transport: RedisStream, handler: Failing, retry: Retry = AT_ONCE) -> Subscriber:
    """Return a subscriber whose handler fails."""
    subscriber = Subscriber(transport, retry=retry)
    subscriber.on()(handler)
    return subscriber


async def wait_for_dead_letters(dead: DeadLetters, number: int = 1) -> list[DeadLetter]:
    """Wait until there are ``number`` dead letters, and return them."""

    async def is_so() -> bool:
        return await dead.count() >= number

    await wait_until(is_so, what=f"{number} dead letters")
    found = await dead.list()
    assert len(found) == number
    return found


async def acknowledged(client: Redis, key: str) -> None:
    """Wait until no entry of the group is pending."""

    async def is_so() -> bool:
        return int((await client.xpending(key, "g"))["pending"]) == 0

    await wait_until(is_so, what="acknowledgements")


class TestGivingUp:
    """When a delivery is given up, and what is kept."""

    async def test_after_the_last_attempt(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """A handler that fails is called three times; then the exact bytes and the reason are kept, and no secret."""
        handler = Failing()
        before = datetime.now(UTC)
        async with failing(make("one"), handler) as subscriber:
            await publish(make(), revoked(1))
            (letter,) = await wait_for_dead_letters(dead)
            await acknowledged(client, key)
            stats = subscriber.stats
        ((position, fields),) = await entries(client, key)
        assert handler.calls == ["token-1"] * 3
        assert letter.payload == fields[b"event"]
        assert letter.error.startswith("ValueError at test_dead_letters.py:")
        assert "secret" not in letter.error
        assert (letter.handler, letter.attempts) == ("Failing", 3)
        assert (letter.consumer, letter.position) == ("one", position)
        assert before - timedelta(seconds=1) <= letter.dead_lettered_at <= datetime.now(UTC) + timedelta(seconds=1)
        assert (stats.failed, stats.dead_lettered, stats.handled) == (1, 1, 0)

    async def test_at_once(self, make: Make, dead: DeadLetters) -> None:
        """An error that is not retryable is given up at once."""
        handler = Failing()
        async with failing(make(), handler, Retry(on=(OSError,))):
            await publish(make(), revoked(1))
            (letter,) = await wait_for_dead_letters(dead)
        assert (len(handler.calls), letter.attempts) == (1, 1)

    async def test_one_of_two_handlers(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """One handler's failure is kept with its name although the other one has succeeded."""
        handler = Failing()
        async with Listener(make(), retry=AT_ONCE) as listener:
            listener.subscriber.on()(handler)
            await publish(make(), revoked(1))
            (letter,) = await wait_for_dead_letters(dead)
            await acknowledged(client, key)
        assert letter.handler == "Failing"
        assert listener.subjects == ["token-1"]

    async def test_over_several_lives(self, make: Make, dead: DeadLetters) -> None:
        """Deliveries to earlier processes count: after three that were cut off there is one more attempt."""
        await publish(make(), revoked(1))
        for _ in range(3):
            gate = Gate()
            subscriber = Subscriber(make("one"), drain_timeout=0.01, retry=AT_ONCE)
            subscriber.on()(gate)
            async with subscriber:
                await wait_until(lambda gate=gate: gate.running == 1)
        assert await dead.count() == 0
        handler = Failing()
        async with failing(make("one"), handler):
            (letter,) = await wait_for_dead_letters(dead)
        assert handler.calls == ["token-1"]
        assert (letter.handler, letter.attempts) == ("Failing", 4)

    async def test_delivered_too_often(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """An event that was delivered ten times and never settled is given up without another attempt."""
        await publish(make(), revoked(1))
        await client.xgroup_create(key, "g", "0")
        await client.xreadgroup("g", "one", {key: ">"})
        ((position, fields),) = await entries(client, key)
        await client.xclaim(key, "g", "one", 0, [position], retrycount=10, justid=True)
        async with Listener(make("one"), retry=AT_ONCE) as listener:
            (letter,) = await wait_for_dead_letters(dead)
            await acknowledged(client, key)
        assert listener.events == []
        assert (letter.error, letter.attempts, letter.payload) == ("delivered too often", 10, fields[b"event"])

    async def test_another_key(self, make: Make, key: str, client: Redis) -> None:
        """The key of the dead letters can be chosen."""
        transport = make(dead_letter=f"{key}:elsewhere")
        async with DeadLetters(transport) as dead, failing(transport, Failing()):
            await publish(make(), revoked(1))
            await wait_for_dead_letters(dead)
        assert await client.exists(f"{key}:dead") == 0

    async def test_without_a_group(self, make: Make, dead: DeadLetters) -> None:
        """Without a group each reader that fails keeps its own dead letter, and reads on."""
        transport, handlers = make(group=None), (Failing(), Failing())
        async with failing(transport, handlers[0]), failing(transport, handlers[1]):
            await publish(transport, revoked(1), revoked(2))
            found = await wait_for_dead_letters(dead, 4)
        assert (
            sorted(decode(letter.payload).event.subject or "" for letter in found) == ["token-1"] * 2 + ["token-2"] * 2
        )


class TestPoison:
    """Bytes that cannot be decoded as an event."""

    @pytest.mark.parametrize(
        ("payload", "reason"), [(b"\xff", "not_json"), (b"{}", "not_an_envelope"), (b"x" * 2_000_000, "too_large")]
    )
    async def test_in_a_group(self, make: Make, dead: DeadLetters, client: Redis, payload: bytes, reason: str) -> None:
        """They are kept once and exactly, acknowledged, and do not delay later events."""
        key = make().destination
        await call(client, "XADD", key, "*", "event", payload)
        async with Listener(make()) as listener:
            await publish(make(), revoked(1))
            await listener.hears("token-1")
            (letter,) = await wait_for_dead_letters(dead)
            await acknowledged(client, key)
        assert (letter.payload, letter.error, letter.handler) == (payload, f"DecodeError: {reason}", None)
        assert listener.subscriber.stats.decode_errors == 1

    async def test_once_for_all_readers(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """Three readers with cursors of their own keep the same bytes once; two entries are kept twice."""
        transport = make(group=None)
        async with Listener(transport) as a, Listener(transport) as b, Listener(transport) as c:
            for _ in range(2):
                await call(client, "XADD", key, "*", "event", b"poison")
            await publish(transport, revoked(1))
            for listener in (a, b, c):
                await listener.hears("token-1")
                assert listener.subscriber.stats.decode_errors == 2
        found = await wait_for_dead_letters(dead, 2)
        assert len({letter.position for letter in found}) == 2
        async with Listener(transport) as late:
            await late.hears("token-1")
        assert await dead.count() == 2

    async def test_foreign_entries(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """An entry that another program wrote in another form is kept as well, and does no harm."""
        await call(client, "XADD", key, "*", "a", "1", "b", "2")
        async with Listener(make()) as listener:
            await publish(make(), revoked(1))
            await listener.hears("token-1")
            (letter,) = await wait_for_dead_letters(dead)
        assert letter.handler is None


class Wire:
    """The entries of a stream as the server holds them; redis-py would lose names that occur twice.

    Args:
        url: the server.
        key: the stream.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self.key = key

    async def add(self, *words: str | bytes) -> None:
        """Append an entry."""
        await self._call("XADD", self.key, "*", *words)

    async def fields(self, position: str) -> list[bytes]:
        """Return names and values of an entry in turn."""
        ((_, fields),) = await self._call("XRANGE", self.key, position, "+", "COUNT", 1)
        return list(fields)

    async def _call(self, *words: str | bytes | int) -> Any:
        connection = await Connector(self._url).connect(within=5)
        try:
            return await connection.call(*words, within=5)
        finally:
            await connection.aclose()


@pytest.fixture
def wire(url: str, key: str) -> Wire:
    """The entries of the stream."""
    return Wire(url, key)


class TestForeignEntries:
    """Entries of the stream, and of the dead letters, that another program wrote in another form."""

    @pytest.mark.parametrize("group", ["g", None])
    @pytest.mark.parametrize(
        "beside",
        [
            (("event", None), ("trace", "abc")),
            (("trace", "abc"), ("event", None)),
            (("a", "1"), ("event", None), ("b", "2"), ("", "")),
            (("event", None), ("event", "again")),
            (("data", None),),
        ],
        ids=str,
    )
    async def test_an_event_with_something_beside_it(
        self, make: Make, wire: Wire, group: str | None, beside: tuple[tuple[str, str | None], ...]
    ) -> None:
        """The event is handled and in force; if it is given up, a replay appends all that was there."""
        payload = encode_event(revoked(1), source="tests")
        words = [word if word is not None else payload for pair in beside for word in pair]
        await wire.add(*words)
        async with RevocationList(make(group=None)) as revocations:
            assert revocations.check({"jti": "token-1"}) is Verdict.REVOKED
        handler = Failing()
        async with failing(make(group=group), handler), DeadLetters(make()) as dead:
            (letter,) = await wait_for_dead_letters(dead)
            assert letter.payload == payload
            before = await wire.fields("-")
            handler.fails = False
            (position,) = await dead.replay(letter.id)
            await wait_until(lambda: handler.succeeded == ["token-1"])
        assert await wire.fields(position) == before

    @pytest.mark.parametrize("group", ["g", None])
    @pytest.mark.parametrize(
        "words",
        [("a", "1", "b", "2"), ("a", "1", "a", "2"), ("error", "e", "time", "t"), ("data", "text"), ("", "")],
        ids=str,
    )
    async def test_no_event(
        self, make: Make, dead: DeadLetters, wire: Wire, group: str | None, words: tuple[str, ...]
    ) -> None:
        """It becomes a dead letter with all its fields, and a replay appends exactly them."""
        await wire.add(*words)
        expected = [word.encode() for word in words]
        async with Listener(make(group=group)) as listener:
            for _ in range(2):
                (letter,) = await wait_for_dead_letters(dead)
                assert (letter.handler, letter.fields) == (None, tuple(zip(expected[::2], expected[1::2], strict=True)))
                (position,) = await dead.replay(letter.id)
                assert await wire.fields(position) == expected
            await wait_for_dead_letters(dead)
            await wait_until(lambda: listener.subscriber.stats.decode_errors == 3)

    async def test_delivered_again(self, make: Make, client: Redis, key: str) -> None:
        """What a dead consumer held is claimed with all its fields."""
        await call(client, "XADD", key, "*", "a", "1", "event", encode_event(revoked(1), source="tests"))
        await client.xgroup_create(key, "g", "0")
        await client.xreadgroup("g", "dead", {key: ">"})
        async with Listener(make("one", claim_after=0.05)) as listener:
            await listener.hears("token-1")

    @pytest.mark.parametrize(
        "words",
        [
            ("a", "1", "b", "2"),
            ("event", b"\xff", "time", "9" * 40),
            ("event", "e", "error", "x", "time", "253402300800000", "attempts", "9" * 5_000),
            ("event", "e", "error", b"\xff", "time", "-1", "attempts", "\u0663"),
            ("event", "e", "error", "x", "time", "1e3", "attempts", ""),
            ("time", "9" * 18),
        ],
        ids=lambda words: str(words)[:40],
    )
    async def test_among_the_dead_letters(
        self, dead: DeadLetters, client: Redis, wire: Wire, words: tuple[str, ...]
    ) -> None:
        """An entry that another program added is listed beside the others, and replayed as it is."""
        identity = (await call(client, "XADD", f"{wire.key}:dead", "*", *words)).decode()
        (letter,) = await dead.list()
        assert await dead.get(identity) == letter
        milliseconds = int(identity.partition("-")[0])
        assert letter.dead_lettered_at == datetime.fromtimestamp(milliseconds / 1000, UTC)
        assert letter.attempts == 0
        (position,) = await dead.replay(letter.id)
        replayed = await wire.fields(position)
        if "error" in words and "event" in words:
            assert replayed == [b"event", b"e"]
        else:
            assert replayed == [word if isinstance(word, bytes) else word.encode() for word in words]
        assert await dead.count() == 0

    async def test_its_own_id(self, dead: DeadLetters, client: Redis, key: str) -> None:
        """An id that is no time is no reason to list nothing."""
        await call(client, "XADD", f"{key}:dead", f"{2**64 - 1}-0", "a", "1")
        (letter,) = await dead.list()
        assert letter.dead_lettered_at == datetime.fromtimestamp(0, UTC)


class TestLookingAfterThem:
    """List, get, replay, purge."""

    async def _dead_letter(self, make: Make, dead: DeadLetters, number: int) -> list[DeadLetter]:
        async with failing(make(), Failing()):
            await publish(make(), *(revoked(n) for n in range(number)))
            return await wait_for_dead_letters(dead, number)

    async def test_list_and_get(self, make: Make, dead: DeadLetters) -> None:
        """They are listed oldest first, in batches; each can be read by its id."""
        found = await self._dead_letter(make, dead, 5)
        ids = [letter.id for letter in found]
        assert [letter.id for letter in await dead.list(limit=2)] == ids[:2]
        assert [letter.id for letter in await dead.list(after=ids[1], limit=2)] == ids[2:4]
        assert await dead.list(after=ids[4]) == []
        assert await dead.get(ids[3]) == found[3]
        assert await dead.get("1-1") is None

    async def test_replay(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """A replayed event is handled by the handler that failed, skipped by others, and no dead letter any more."""
        handler = Failing()
        async with failing(make(), handler), Listener(make(group="other")) as other:
            await publish(make(), revoked(1))
            (letter,) = await wait_for_dead_letters(dead)
            await other.hears("token-1")
            handler.fails = False
            (position,) = await dead.replay(letter.id)
            await wait_until(lambda: handler.succeeded == ["token-1"])
            await acknowledged(client, key)
            await wait_until(lambda: other.subscriber.stats.duplicates == 1)
        assert other.subjects == ["token-1"]
        assert await dead.count() == 0
        assert (await entries(client, key))[-1] == (position, {b"event": letter.payload})

    async def test_replay_of_one_twice(self, make: Make, dead: DeadLetters, client: Redis, key: str) -> None:
        """One that is named twice is replayed once."""
        (letter,) = await self._dead_letter(make, dead, 1)
        before = len(await entries(client, key))
        assert len(await dead.replay(letter.id, letter.id)) == 1
        assert len(await entries(client, key)) == before + 1

    async def test_replay_of_what_is_gone(self, make: Make, dead: DeadLetters) -> None:
        """Ids of dead letters that no longer exist are skipped."""
        letter, *_ = await self._dead_letter(make, dead, 2)
        assert await dead.purge(letter.id) == 1
        assert list(await dead.replay(letter.id)) == []
        assert list(await dead.replay()) == []
        assert await dead.count() == 1

    async def test_purge(self, make: Make, dead: DeadLetters) -> None:
        """Purged dead letters are removed for good, and their count is returned."""
        a, b, c = await self._dead_letter(make, dead, 3)
        assert await dead.purge(a.id, b.id, "1-1") == 2
        assert await dead.purge(a.id) == 0
        assert await dead.purge() == 0
        assert await dead.list() == [c]

    async def test_refused(self, make: Make, dead: DeadLetters) -> None:
        """A bad id, transport or limit, and use before entering, are refused."""
        for letter_id in ("", "1", "+", "1-1 ", 5):
            with pytest.raises(InvalidOption):
                await dead.get(letter_id)  # type: ignore[arg-type]  # the point
        with pytest.raises(InvalidOption):
            await dead.list(limit=1_001)
        with pytest.raises(InvalidOption):
            DeadLetters(MemoryTransport())  # type: ignore[arg-type]  # the point
        with pytest.raises(Closed):
            await DeadLetters(make()).count()
