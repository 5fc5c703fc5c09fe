"""The rights that the documents name are enough."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from jwt_events import Publisher, PublishFailed, RedisPubSub, RedisStream, Retry, RevocationList, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.support.documents import DOCS, granted
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

OPERATIONS = (DOCS / "operations.md").read_text()
PLACES = {
    "Pub/Sub": ["resetchannels", "&k"],
    "stream": ["~k", "~k:dead*", "~k:retention", "~k:ledger*"],
    "group": ["~k", "~k:dead*"],
}


async def url_of(client: Redis, server: EmbeddedServer, role: str, kind: str) -> str:
    """Make a user with these rights and no others, and return how to connect as that user."""
    rights = granted(f"{role}, {'stream' if (role, kind) == ('publisher', 'group') else kind}")
    await call(client, "ACL", "SETUSER", role, "reset", "on", ">secret", *PLACES[kind], *rights)
    return server.url.replace("redis://", f"redis://{role}:secret@")


@pytest.mark.parametrize("kind", PLACES)
async def test_the_rights_on_the_page_suffice(own_server: Callable[..., EmbeddedServer], kind: str) -> None:
    """With them, and no others, events are published, handled, given up and, after a lost connection, handled again."""

    def transport(url: str) -> RedisPubSub | RedisStream:
        if kind == "Pub/Sub":
            return RedisPubSub(url, "k")
        return RedisStream(url, "k", group="g" if kind == "group" else None)

    async with own_server(port=0) as server, Redis.from_url(server.url) as client:
        publisher_url = await url_of(client, server, "publisher", kind)
        subscriber_url = await url_of(client, server, "subscriber", kind)
        async with (
            Listener(transport(subscriber_url), retry=Retry(attempts=1)) as listener,
            Publisher(transport(publisher_url), timeout=scaled(5)) as publisher,
        ):

            async def hears(name: str) -> None:
                await publisher.publish(TokenRevoked(token_id=name))
                await listener.hears(name)

            await hears("before")
            if kind != "Pub/Sub":
                await call(client, "XADD", "k", "*", "event", b"no event")
                await wait_until(lambda: client.xlen("k:dead"), what="the dead letter")
            await client.client_kill_filter(_type="pubsub" if kind == "Pub/Sub" else "normal", skipme=True)
            await wait_until(lambda: client.client_list(_type="pubsub") if kind == "Pub/Sub" else True)
            await wait_until(lambda: listener.subscriber.stats.gaps > 0 or kind != "Pub/Sub", what="the gap")
            await hears("after")


async def test_a_service_that_only_checks(own_server: Callable[..., EmbeddedServer]) -> None:
    """The user of whom the page shows the making can keep a list, across a lost connection, and publish nothing."""
    (command,) = re.findall(r"^> (ACL SETUSER .*)$", OPERATIONS, re.MULTILINE)
    async with own_server(port=0) as server, Redis.from_url(server.url) as client:
        await call(client, *command.split())
        url = server.url.replace("redis://", "redis://orders:secret@")
        async with Publisher(RedisStream(server.url)) as owner, RevocationList(RedisStream(url)) as revocations:
            for name in ("before", "after"):
                await owner.publish(TokenRevoked(token_id=name))
                await wait_until(lambda claims={"jti": name}: revocations.check(claims) is Verdict.REVOKED)
                await client.client_kill_filter(user="orders")
        async with Publisher(RedisStream(url)) as intruder:
            with pytest.raises(PublishFailed, match="NOPERM"):
                await intruder.publish(TokenRevoked(user_id="everybody"))
