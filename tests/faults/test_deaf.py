"""A Pub/Sub subscriber that no longer receives reports a gap soon; repeated, because this must never fail.

``JWT_EVENTS_TEST_REPEAT`` sets how often each case is repeated; 10 times by default.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from jwt_events import RedisPubSub
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.faults.scenes import Source
from tests.support.faults import frozen
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

REPEAT = int(os.environ.get("JWT_EVENTS_TEST_REPEAT", "10"))

# How many run at the same time: more would test how fast this machine is.
AT_ONCE = 10

# Seconds from the fault to its report.
NOTICED_WITHIN = 3.0


def lose_replies(proxy: Proxy) -> None:
    """Half open: bytes of the client arrive, bytes of the server do not."""
    proxy.to_client.lose()


def lose_requests(proxy: Proxy) -> None:
    """Half open the other way: the server receives nothing, and so sends nothing."""
    proxy.to_server.lose()


def lose_all(proxy: Proxy) -> None:
    """Drop all bytes in both directions."""
    proxy.to_client.lose()
    proxy.to_server.lose()


def hold_up(proxy: Proxy) -> None:
    """Hold all bytes, losing none."""
    proxy.to_client.hold()
    proxy.to_server.hold()


def delay(proxy: Proxy) -> None:
    """Delay all bytes by a minute."""
    proxy.to_client.latency = 60.0


FAULTS = (lose_replies, lose_requests, lose_all, hold_up, delay)


@asynccontextmanager
async def listening(source: Source, *transports: RedisPubSub) -> AsyncIterator[list[Listener]]:
    """Run a listener on each transport, from its first event until it receives again at the end."""
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(Listener(transport)) for transport in transports]
        subject = await source.publish()
        for listener in listeners:
            await listener.hears(subject)
        yield listeners
        for listener in listeners:
            await source.is_heard_by(listener)
            assert listener.causes == ["disconnected", "reconnected"]


async def report_being_deaf(listener: Listener) -> None:
    """Wait until every listener has reported a gap, in time."""
    await wait_until(lambda: listener.gaps, within=NOTICED_WITHIN, what="a gap")
    assert listener.causes == ["disconnected"]


class TestDeaf:
    """Subscriptions that receive nothing, on connections that look open."""

    async def test_half_open_connection(self, url: str, key: str) -> None:
        """If bytes are lost, held or late, there is a gap within three seconds, and one when events flow again."""

        async def once(number: int, fault: Callable[[Proxy], None]) -> None:
            channel = f"{key}:{number}:{fault.__name__}"
            async with (
                Proxy(url) as proxy,
                Source(RedisPubSub(url, channel)) as source,
                listening(source, RedisPubSub(proxy.url, channel)) as (listener,),
            ):
                fault(proxy)
                await source.publish()
                await report_being_deaf(listener)
                proxy.reset()
                proxy.heal()

        for start in range(0, REPEAT, AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for number in range(start, min(start + AT_ONCE, REPEAT)):
                    for fault in FAULTS:
                        group.create_task(once(number, fault), name=fault.__name__)

    async def test_frozen_server(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """All subscribers notice a frozen server within three seconds, and its return as well."""
        async with own_server(port=0) as server, Source(RedisPubSub(server.url)) as source:
            for _ in range(0, REPEAT, AT_ONCE):
                async with listening(source, *[RedisPubSub(server.url)] * AT_ONCE) as listeners:
                    with frozen(server):
                        await asyncio.gather(*map(report_being_deaf, listeners))
