"""Publishing to a server that says no: at once where another try will not help, and with the reason."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from jwt_events import Publisher, PublishFailed, PublishOutcomeUnknown, RedisPubSub, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from tests.support.fake_server import FakeServer, array, text
from tests.support.raw import call
from tests.support.waiting import scaled

EVENT = TokenRevoked(token_id="t")
WRONG = "s3cret"
TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = Callable[[str], RedisPubSub | RedisStream]


async def test_a_full_server(own_server: Callable[..., EmbeddedServer]) -> None:
    """Out of memory is tried again until the deadline, then surely not published; when there is room, it is."""
    async with own_server() as server, Redis.from_url(server.url) as admin:
        await call(admin, "CONFIG", "SET", "maxmemory", 1)
        async with Publisher(RedisStream(server.url)) as publisher:
            with pytest.raises(PublishFailed, match=r"XADD .* refused: OOM "):
                await publisher.publish(EVENT, timeout=scaled(1))
            publishing = asyncio.create_task(publisher.publish(EVENT, timeout=scaled(10)))
            await call(admin, "CONFIG", "SET", "maxmemory", 0)
            assert (await publishing).position is not None


@TRANSPORTS
@pytest.mark.parametrize("port", [None, 0], ids=["unix", "tcp"])
async def test_a_wrong_password_or_none(
    own_server: Callable[..., EmbeddedServer], make: MakeTransport, port: int | None
) -> None:
    """What another try will not change ends a publish at once; no password is shown."""
    async with own_server(port=port, config={"requirepass": "the-right-one"}) as server:
        for user, code in (("", "NOAUTH"), (f":{WRONG}@", "WRONGPASS")):
            transport = make(server.url.replace("://", f"://{user}"))
            async with Publisher(transport) as publisher, asyncio.timeout(scaled(1)):
                with pytest.raises(PublishFailed, match=code) as caught:
                    await publisher.publish(EVENT)
            shown = [*traceback.format_exception(caught.value), repr(caught.value), repr(publisher), repr(transport)]
            assert WRONG not in "".join(shown)


@TRANSPORTS
async def test_no_permission(own_server: Callable[..., EmbeddedServer], make: MakeTransport) -> None:
    """A user who may not publish is refused at once."""
    async with own_server() as server, Redis.from_url(server.url) as admin:
        await call(admin, "ACL", "SETUSER", "writer", "on", ">pw", "+@all", "resetchannels", "resetkeys")
        async with (
            Publisher(make(server.url.replace("://", "://writer:pw@"))) as publisher,
            asyncio.timeout(scaled(1)),
        ):
            with pytest.raises(PublishFailed, match=r"(XADD|PUBLISH) at unix:.* 'jwt:events' refused: NOPERM"):
                await publisher.publish(EVENT)


async def test_a_key_of_another_type(url: str, key: str, client: Redis) -> None:
    """A key that holds no stream is refused at once."""
    await client.set(key, "x")
    async with Publisher(RedisStream(url, key)) as publisher, asyncio.timeout(scaled(1)):
        with pytest.raises(PublishFailed, match=f"'{key}' refused: WRONGTYPE"):
            await publisher.publish(EVENT)


async def test_a_command_that_the_server_does_not_know() -> None:
    """An answer that quotes the event is reported without it."""

    def quote(words: list[bytes]) -> bytes:
        return b"-ERR unknown command 'PUBLISH', with args beginning with: '" + words[2][:40] + b"'\r\n"

    async with FakeServer(quote) as server, Publisher(RedisPubSub(server.url)) as publisher:
        with pytest.raises(
            PublishFailed, match=r"ERR unknown command 'PUBLISH'; Redis 6.2 or newer is needed, or Valkey$"
        ):
            await publisher.publish(EVENT)
        assert len(server.received(b"PUBLISH")) == 1


async def test_an_answer_that_makes_no_sense() -> None:
    """It ends the publish with the truth about what was sent, and leaves the publisher alive."""
    async with FakeServer(lambda _: b":5\r\n") as server, Publisher(RedisStream(server.url)) as publisher:
        messages = []
        for _ in range(3):  # the first time, what is no answer to ZADD ends a connection before XADD is sent
            async with asyncio.timeout(scaled(5)):
                with pytest.raises(PublishOutcomeUnknown) as caught:
                    await publisher.publish(EVENT, timeout=scaled(0.5))
            messages.append(str(caught.value))
        # The last attempt of a publish may find no time for an answer.
        assert all(server.address in message for message in messages)
        assert any(f"XADD at {server.address}" in message and "makes no sense" in message for message in messages)


async def test_an_answer_that_no_number_fits() -> None:
    """An answer of the right shape that breaks what trims the stream: not published, and not quoted."""
    endless = b"7" * 5_000  # more digits than Python turns into a number
    answers = {b"ZADD": b":1\r\n", b"TIME": array(text(endless), text(b"1")), b"XADD": text(b"1-1")}

    def answer(words: list[bytes]) -> bytes:
        return text(b"1") if b"INCR" in words else answers[words[0]]

    async with FakeServer(answer) as server, Publisher(RedisStream(server.url, ledger=False)) as publisher:
        with pytest.raises(
            PublishFailed, match=f"unexpected ValueError in the exchange with {server.address}"
        ) as caught:
            await publisher.publish(EVENT, timeout=scaled(5))
        assert "7" * 10 not in "".join(traceback.format_exception(caught.value))
        assert server.received(b"XADD") == []
        receipt = await publisher.publish(EVENT, timeout=scaled(5))  # trimming is not due again
        assert receipt.position == "1-1"


async def test_an_answer_to_something_else() -> None:
    """A connection on which answers are out of step is replaced, and the event is published on the next one."""
    answers = iter([b":5\r\n", text(b"1-1")])
    trimming = {b"TIME": array(text(b"1"), text(b"1")), b"XTRIM": b":0\r\n"}

    def answer(words: list[bytes]) -> bytes:
        if words[0] == b"ZADD":
            return text(b"1") if b"INCR" in words else b":1\r\n"
        return next(answers) if words[0] == b"XADD" else trimming[words[0]]

    async with FakeServer(answer) as server, Publisher(RedisStream(server.url)) as publisher:
        receipt = await publisher.publish(EVENT, timeout=scaled(5))
        assert receipt.position == "1-1"
        assert server.connections == 2
        first, second = server.received(b"XADD")
        assert first == second
