"""Network failures of every kind: a stream loses no event, and Pub/Sub reports every loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress

import pytest

from jwt_events import TransportError
from jwt_events.testing import Listener
from tests.faults.scenes import STREAMS, TRANSPORTS, Source, transport_of
from tests.support.proxy import Proxy
from tests.support.waiting import scaled, wait_until

Fault = Callable[[Proxy], None]


def slow(proxy: Proxy) -> None:
    """Delay bytes in both directions."""
    proxy.to_server.latency = proxy.to_client.latency = 0.05


def byte_by_byte(proxy: Proxy) -> None:
    """Forward single bytes in both directions."""
    proxy.to_server.byte_by_byte = proxy.to_client.byte_by_byte = True


BREAKS: dict[str, Fault] = {
    "reset": lambda proxy: proxy.reset(),
    "half close": lambda proxy: proxy.half_close(),
    "cut in the middle of a reply": lambda proxy: proxy.to_client.cut_after(7),
    "cut in the middle of a command": lambda proxy: proxy.to_server.cut_after(7),
    "a byte of a reply corrupted": lambda proxy: proxy.to_client.corrupt_next(),
}
SLOWS: dict[str, Fault] = {"slow": slow, "byte by byte": byte_by_byte}
LOSSES: dict[str, Fault] = {
    "half open towards the client": lambda proxy: proxy.to_client.lose(),
    "half open towards the server": lambda proxy: proxy.to_server.lose(),
    "held up": lambda proxy: proxy.to_client.hold(),
}


def acknowledgement(data: bytes) -> bool:
    """Whether this is an acknowledgement, or the reply to one."""
    return b"XACK" in data or data in {b":%d\r\n" % number for number in range(1, 10)}


# On Pub/Sub no request waits for the bytes lost here, and a network that loses a part then loses the connection.
LOSSES_OF_ONE: dict[str, Fault] = {
    "a reply lost": lambda proxy: proxy.to_client.swallow_next(),
    "a command lost": lambda proxy: proxy.to_server.swallow_next(),
}
LOSSES_OF_GROUPS: dict[str, Fault] = {
    "the reply to an acknowledgement lost": lambda proxy: proxy.to_client.swallow_next(acknowledgement),
    "an acknowledgement lost": lambda proxy: proxy.to_server.swallow_next(acknowledgement),
}


async def endure(kind: str, url: str, key: str, fault: Fault) -> Listener:
    """Cause a fault while events are published to a listener; check that it receives again and what is guaranteed.

    Returns:
        The listener, for further checks.
    """
    name = f"{key}:{kind}"
    async with Proxy(url) as proxy, Source(transport_of(kind, url, name)) as source:
        async with Listener(transport_of(kind, proxy.url, name)) as listener:
            await listener.hears(await source.publish())
            connections = proxy.accepted
            fault(proxy)
            await source.publish(5)
            # On Pub/Sub the listener sends nothing as long as messages arrive.
            async with nullcontext() if kind == "pubsub" else source.flowing():
                if fault not in SLOWS.values():
                    await wait_until(lambda: proxy.accepted > connections, within=15, what=f"{kind} to connect again")
                await source.publish(20)
            proxy.heal()
            await source.is_heard_by(listener)
            if kind != "pubsub":
                await listener.hears(*source.confirmed)
        received = set(listener.subjects)
        missing = [subject for subject in source.confirmed if subject not in received]
        if kind == "pubsub":
            assert listener.gaps or not missing, f"lost in silence: {missing}"
        else:
            assert missing == []
            assert listener.gaps == [], "a stream that lost nothing must not say so"
        assert listener.subscriber.stats.decode_errors == 0
    return listener


@pytest.mark.parametrize("kind", TRANSPORTS)
class TestABreak:
    """Broken connections that both sides are told of."""

    @pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
    async def test_is_made_good(self, url: str, key: str, kind: str, fault: Fault) -> None:
        """After a broken connection events flow again: a stream loses none, and Pub/Sub reports a gap."""
        listener = await endure(kind, url, key, fault)
        if kind == "pubsub":
            assert "reconnected" in listener.causes


@pytest.mark.parametrize("kind", TRANSPORTS)
class TestSlowness:
    """Bytes that are late, or arrive one at a time."""

    @pytest.mark.parametrize("fault", SLOWS.values(), ids=SLOWS)
    async def test_is_no_failure(self, url: str, key: str, kind: str, fault: Fault) -> None:
        """A slow network loses nothing and is not mistaken for a broken one."""
        listener = await endure(kind, url, key, fault)
        assert listener.gaps == []


class TestSilence:
    """Bytes that disappear without an error."""

    async def test_is_noticed(self, url: str, key: str) -> None:
        """After a silent loss events flow again: on a stream all of them, on Pub/Sub with a gap."""
        cases = [(kind, name, fault) for name, fault in LOSSES.items() for kind in TRANSPORTS]
        cases += [(kind, name, fault) for name, fault in LOSSES_OF_ONE.items() for kind in STREAMS]
        cases += [("group", name, fault) for name, fault in LOSSES_OF_GROUPS.items()]

        async def endure_one(kind: str, name: str, fault: Fault) -> None:
            try:
                await endure(kind, url, f"{key}:{name}", fault)
            except BaseException as error:
                error.add_note(f"on {kind}: {name}")
                raise

        # All at the same time, because it takes seconds to notice a silent loss.
        async with asyncio.timeout(scaled(60)), asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(endure_one(*case))


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_corrupted_command(url: str, key: str, kind: str) -> None:
    """A corrupted command is refused: that ends the subscription with an error, or is retried."""
    async with Proxy(url) as proxy, Source(transport_of(kind, url, key)) as source:
        await source.publish()
        with suppress(TransportError):
            async with Listener(transport_of(kind, proxy.url, key)) as listener:
                await source.is_heard_by(listener)
                proxy.to_server.corrupt_next()
                await wait_until(lambda: proxy.to_server.damage is None)
                await source.is_heard_by(listener)
                await listener.hears(*source.confirmed[1:])
