"""Tests of the proxy that other tests rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


class Echo:
    """A server that sends back what it receives, and records it."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        try:
            while data := await reader.read(65_536):
                self.received += data
                writer.write(data)
        except OSError:
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """An echo server."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield echo
    await wait_until(lambda: asyncio.all_tasks() <= {asyncio.current_task()})


class Client:
    """A plain connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, proxy: Proxy) -> Client:
        """Connect to a proxy."""
        if proxy.url.startswith("unix"):
            return cls(*await asyncio.open_unix_connection(proxy.url.removeprefix("unix://")))
        host, _, port = proxy.url.removeprefix("redis://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def sends(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def receives(self, number: int) -> bytes:
        """Wait for ``number`` bytes and return them."""
        return await soon(self.reader.readexactly(number))

    async def close(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()


class TestProxy:
    """Tests of one fault each."""

    async def test_lets_everything_through(self, echo: Echo, tmp_path: Path) -> None:
        """Without a fault all bytes arrive, over TCP and unix sockets, many of them, too."""
        for path in (None, tmp_path / "proxy.sock"):
            async with Proxy(echo.url, path=path) as proxy:
                client = await Client.of(proxy)
                data = b"x" * 1_000_000
                await client.sends(data)
                assert await client.receives(len(data)) == data
                await client.close()

    async def test_loses_what_is_said_one_way(self, echo: Echo) -> None:
        """If replies are lost, the server still received the bytes; the connection stays dead, a new one works."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            await client.sends(b"a")
            assert await client.receives(1) == b"a"
            proxy.to_client.lose()
            await client.sends(b"b")
            await wait_until(lambda: echo.received == b"ab")
            proxy.heal()
            await client.sends(b"c")
            await wait_until(lambda: echo.received == b"abc")
            other = await Client.of(proxy)
            await other.sends(b"d")
            assert await other.receives(1) == b"d"
            assert not client.reader.at_eof()
            await other.close()
            await client.close()

    async def test_holds_up_and_lets_go(self, echo: Echo) -> None:
        """Held bytes arrive after `heal`."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            proxy.to_client.hold()
            await client.sends(b"a")
            await wait_until(lambda: echo.received == b"a")
            assert proxy.to_client.passed == 0
            proxy.heal()
            assert await client.receives(1) == b"a"
            await client.close()

    async def test_cuts_in_the_middle(self, echo: Echo) -> None:
        """After the given count of bytes the connection ends, on both sides."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            proxy.to_client.cut_after(3)
            await client.sends(b"abcdef")
            assert await soon(client.reader.read()) == b"abc"
            await wait_until(lambda: echo.ended)
            await client.close()

    async def test_swallows_and_corrupts_once(self, echo: Echo) -> None:
        """The next chunk is lost, or changed in its first byte; later chunks are not."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            proxy.to_client.swallow_next()
            await client.sends(b"a")
            await wait_until(lambda: echo.received == b"a" and proxy.to_client.damage is None)
            proxy.to_client.corrupt_next()
            await client.sends(b"b")
            assert await client.receives(1) == b'"'
            await client.sends(b"c")
            assert await client.receives(1) == b"c"
            await client.close()

    async def test_resets(self, echo: Echo) -> None:
        """Both sides of a connection get the reset."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            await client.sends(b"a")
            await client.receives(1)
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await soon(client.reader.read())
            await wait_until(lambda: echo.ended)
            await client.close()

    async def test_half_closes(self, echo: Echo) -> None:
        """After a half close the client receives the end, and can still send."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            await client.sends(b"a")
            await client.receives(1)
            proxy.half_close()
            assert await soon(client.reader.read()) == b""
            await client.sends(b"b")
            await wait_until(lambda: echo.received == b"ab")
            await client.close()

    async def test_is_slow(self, echo: Echo) -> None:
        """Late bytes and single bytes arrive, in order."""
        async with Proxy(echo.url) as proxy:
            client = await Client.of(proxy)
            proxy.to_server.byte_by_byte, proxy.to_client.latency = True, 0.01
            await client.sends(b"abcdef")
            assert await client.receives(6) == b"abcdef"
            await client.close()

    async def test_leaves_nothing(self, echo: Echo) -> None:
        """Leaving the context ends every connection, hanging ones too."""
        async with Proxy(echo.url) as proxy:
            clients = [await Client.of(proxy) for _ in range(3)]
            proxy.to_client.hold()
            proxy.to_server.lose()
            for client in clients:
                await client.sends(b"a")
            await wait_until(lambda: proxy.connected == 3)
        assert proxy.connected == 0
        for client in clients:
            with pytest.raises(ConnectionResetError):
                await soon(client.reader.read())
            await client.close()
