"""The examples of guarded services, each run as its own process, with real tokens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer
from tests.support.handling import soon
from tests.support.tokens import bearer
from tests.support.waiting import scaled, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"

OwnServer = Callable[[], EmbeddedServer]


@asynccontextmanager
async def service(example: str, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run an example as a process; check that it ends without an error in its output."""
    port = free_port()
    environment = os.environ | {"JWT_EVENTS_URL": url, "PYTHONWARNINGS": "error", "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / example, env=environment, stdout=PIPE, stderr=PIPE
    )
    output = asyncio.create_task(process.communicate())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=scaled(30)) as client:
            await wait_until(lambda: _answers(client) if not output.done() else True, within=60, what=example)
            yield client
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        said = b"".join(await soon(output, within=30)).decode()
    assert process.returncode in (0, -signal.SIGTERM), said  # uvicorn ends by the signal that stopped it
    assert "Traceback" not in said
    assert "Warning" not in said


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/me")
    except httpx.TransportError:
        return False
    return True


async def _refuses(client: httpx.AsyncClient, token: str) -> bool:
    return (await client.get("/me", headers=bearer(token))).status_code == 401


async def _token(client: httpx.AsyncClient, path: str) -> str:
    response = await client.post(path)
    return str(response.json())


@pytest.mark.parametrize("example", ["05_fastapi.py", "06_aiohttp.py"])
async def test_two_instances(own_server: OwnServer, example: str) -> None:
    """A token that is revoked at one instance is refused at the other."""
    async with own_server() as server, service(example, server.url) as one, service(example, server.url) as other:
        laptop, phone, bob = [await _token(one, f"/login/{user}") for user in ("alice", "alice", "bob")]
        for token in (laptop, phone):
            assert (await other.get("/me", headers=bearer(token))).json() == "you are alice"
        assert (await one.post("/logout", headers=bearer(laptop))).status_code == 200
        await wait_until(partial(_refuses, other, laptop), what="the refusal of a token that was logged out")
        assert not await _refuses(other, phone)
        assert (await other.post("/logout-everywhere", headers=bearer(phone))).status_code == 200
        for instance in (one, other):
            await wait_until(partial(_refuses, instance, phone), what="the refusal of all tokens of the user")
        assert (await one.get("/me", headers=bearer(bob))).json() == "you are bob"
        assert not await _refuses(one, await _token(other, "/login/alice"))
        assert (await one.get("/ready")).status_code == 200


async def test_websocket(own_server: OwnServer) -> None:
    """When a device is lost its WebSocket is closed, and the user's other one stays open."""
    async with own_server() as server, service("07_websocket.py", server.url) as client:
        laptop, phone = [await _token(client, f"/login/alice/{device}") for device in ("laptop", "phone")]
        address = f"ws://{client.base_url.host}:{client.base_url.port}/echo"
        other = await _token(client, "/login/bob/phone")
        again = await _token(client, "/login/alice/phone")
        in_browser = connect(address, subprotocols=[Subprotocol("bearer"), Subprotocol(laptop)])
        async with in_browser as lost, connect(address, additional_headers=bearer(phone)) as kept:
            assert lost.subprotocol == "bearer"
            await client.post("/lost/alice/laptop")
            with pytest.raises(ConnectionClosed):
                await soon(lost.recv())
            assert lost.close_code == 4401
            await kept.send("hello")
            assert await soon(kept.recv()) == "alice said hello"
            await kept.send(f"token {again}")
            assert await soon(kept.recv()) == "alice said token"
            await kept.send(f"token {other}")
            with pytest.raises(ConnectionClosed):
                await soon(kept.recv())
            assert (kept.close_code, kept.close_reason) == (4401, "another_subject")
        with pytest.raises(InvalidStatus):
            await connect(address, additional_headers=bearer(laptop)).__aenter__()


async def test_asgi(own_server: OwnServer) -> None:
    """Static files, documentation and a stream need the cookie, and the stream ends when its user logs out."""
    async with own_server() as server, service("14_asgi.py", server.url) as client:
        for path in ("/files/14_asgi.py", "/docs", "/clock", "/me"):
            assert (await client.get(path)).status_code == 401, path
        login = await client.post("/login/alice")
        assert {"Secure", "HttpOnly", "SameSite=lax"} <= set(login.headers["Set-Cookie"].split("; "))
        cookie = {"Cookie": f"__Host-token={login.cookies['__Host-token']}"}
        client.cookies.clear()
        assert (await client.get("/files/14_asgi.py", headers=cookie)).text.startswith('"""Learn to guard')
        async with client.stream("GET", "/clock", headers=cookie) as response:
            ticks = response.aiter_text()
            assert (await soon(anext(ticks))).startswith("alice: ")
            assert (await client.post("/logout", headers=cookie)).status_code == 200
            async with asyncio.timeout(scaled(30)):
                async for _ in ticks:
                    pass
        assert (await client.get("/docs", headers=cookie)).status_code == 401


async def test_key_rotation(own_server: OwnServer) -> None:
    """Tokens of the old key are valid after a rotation, and refused after one because of a leak."""
    async with own_server() as server, service("08_key_rotation.py", server.url) as client:
        first = await _token(client, "/login/alice")
        await client.post("/rotate")
        second = await _token(client, "/login/alice")
        for token in (first, second):
            assert (await client.get("/me", headers=bearer(token))).json() == "you are alice"
        await client.post("/rotate", params={"leaked": True})
        await wait_until(partial(_refuses, client, second), what="the refusal of tokens of the key that leaked")
        for token in (first, await _token(client, "/login/alice")):
            assert (await client.get("/me", headers=bearer(token))).json() == "you are alice"
