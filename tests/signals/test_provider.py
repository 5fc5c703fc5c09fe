"""A real OpenID provider, a real login and logout, and services in processes of their own that refuse the session."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer
from tests.signals.peers import CLIENTS
from tests.support.tokens import bearer
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.provider, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "provider/provider.mjs"
MODULES = Path(os.environ.get("JWT_EVENTS_TEST_PROVIDER", ROOT / ".venv/provider"))
KEY = "test:provider"


@asynccontextmanager
async def process(*command: str | Path, **options: Any) -> AsyncIterator[Process]:
    """Run a process, and end it."""
    started = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        async with asyncio.timeout(scaled(10)):
            await started.wait()


class Browser:
    """A browser of a user: a session at the provider, and the tokens of a client."""

    def __init__(self, issuer: str, user: str) -> None:
        self._issuer = issuer
        self._user = user
        self._client = httpx.AsyncClient(base_url=issuer, timeout=scaled(10))
        self.tokens: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._client.aclose()

    async def _go(self, url: str, form: dict[str, str] | None = None) -> tuple[str, str]:
        """Follow redirects up to a page, or up to the client; return its address and content."""
        for _ in range(10):
            method = "GET" if form is None else "POST"
            response = await self._client.request(method, urljoin(self._issuer, url), data=form)
            if not response.is_redirect:
                assert response.is_success, response.text
                return str(response.url), response.text
            url, form = urljoin(str(response.url), response.headers["location"]), None
            if urlsplit(url).path.startswith("/client/"):
                return url, ""
        raise AssertionError("it redirects for ever")

    async def log_in(self, client: str) -> str:
        """Log in at a client; return the access token."""
        back = f"{self._issuer}/client/{client}"
        query = {"client_id": client, "response_type": "code", "scope": "openid read", "redirect_uri": back}
        url, page = await self._go(f"/auth?{httpx.QueryParams(query)}")
        while page:  # a page for the login, and one for the consent
            action = re.findall(r'<form[^>]*action="([^"]+)"', page)[0]
            form = {"prompt": re.findall(r'name="prompt" value="([^"]+)"', page)[0]}
            url, page = await self._go(action, form | {"login": self._user, "password": "any"})
        form = {"grant_type": "authorization_code", "code": parse_qs(urlsplit(url).query)["code"][0]}
        secret = {"client_id": client, "client_secret": f"secret of {client}, long enough for a shared one"}
        response = await self._client.post("/token", data=form | secret | {"redirect_uri": back})
        self.tokens = response.raise_for_status().json()
        return str(self.tokens["access_token"])

    async def log_out(self) -> None:
        """End the session at the provider, which tells every client of the session."""
        query = {"id_token_hint": self.tokens["id_token"], "post_logout_redirect_uri": f"{self._issuer}/client/bye"}
        _, page = await self._go(f"/session/end?{httpx.QueryParams(query)}")
        action = re.findall(r'action="([^"]+)"', page)[0]
        form = {"xsrf": re.findall(r'name="xsrf" value="([^"]+)"', page)[0], "logout": "yes"}
        url, _ = await self._go(action, form)
        assert urlsplit(url).path == "/client/bye"


class World:
    """The provider and two services, each in a process of its own; only the first receives logout tokens."""

    def __init__(self) -> None:
        port, *services = (free_port() for _ in range(3))
        self.port = port
        self.issuer = f"http://127.0.0.1:{port}"
        self.ports = services
        self.services = [f"http://127.0.0.1:{service}" for service in services]
        self.provider: Process

    async def start(self, stack: AsyncExitStack, url: str) -> None:
        """Start everything, and wait until it is ready."""
        logout = f"{self.services[0]}/backchannel-logout"
        clients = {client: {"logout": logout, "session": client == "app"} for client in CLIENTS}
        environment = os.environ | {"PROVIDER": json.dumps({"port": self.port, "clients": clients})}
        node = process(
            "node", "--input-type=module", cwd=MODULES, env=environment, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        self.provider = await stack.enter_async_context(node)
        assert self.provider.stdin is not None
        self.provider.stdin.write(SCRIPT.read_bytes())
        self.provider.stdin.write_eof()
        assert await self.line() == "READY"
        for framework, port in zip(("fastapi", "aiohttp"), self.ports, strict=True):
            arguments = (framework, str(port), url, KEY, self.issuer)
            await stack.enter_async_context(process(sys.executable, "-m", "tests.signals.peers", *arguments, cwd=ROOT))
        for service in self.services:
            await wait_until(lambda service=service: self._is_ready(service), within=30)

    async def _is_ready(self, service: str) -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{service}/ready")).is_success
        except httpx.TransportError:
            return False

    async def line(self) -> str:
        """Return the next line that the script says, and not the notices of the library."""
        assert self.provider.stdout is not None
        async with asyncio.timeout(scaled(20)):
            while (line := (await self.provider.stdout.readline()).decode().rstrip()) != "READY":
                if line.startswith("{"):
                    break
                assert line, "the provider has ended"
        return line

    async def ask(self, token: str) -> list[int]:
        """Return what the services reply to an access token."""
        async with httpx.AsyncClient() as client:
            return [(await client.get(f"{one}/me", headers=bearer(token))).status_code for one in self.services]

    async def refused(self, token: str) -> None:
        """Wait until every service refuses an access token."""

        async def everywhere() -> bool:
            return await self.ask(token) == [401, 401]

        await wait_until(everywhere, what="refused by both services")


@pytest.fixture
async def world(own_server: Callable[..., EmbeddedServer]) -> AsyncIterator[World]:
    """The provider and the services."""
    async with own_server() as server, AsyncExitStack() as stack:
        world = World()
        await world.start(stack, server.url)
        yield world


@asynccontextmanager
async def logged_in(world: World, client: str) -> AsyncIterator[tuple[Browser, list[Any]]]:
    """Log in twice as alice and once as bob; give the first browser, and the tokens, which both services let in."""
    async with (
        Browser(world.issuer, "alice") as laptop,
        Browser(world.issuer, "alice") as phone,
        Browser(world.issuer, "bob") as bob,
    ):
        tokens = [await browser.log_in(client) for browser in (laptop, phone, bob)]
        for token in tokens:
            assert await world.ask(token) == [200, 200]
        yield laptop, tokens


async def test_log_out(world: World) -> None:
    """The session that ended is refused by both services, another one of the same user and other users are not."""
    async with logged_in(world, "app") as (laptop, (first, second, other)):
        await laptop.log_out()
        told = json.loads(await world.line())
        assert (told["sent"], told["account"]) == ("app", "alice")
        await world.refused(first)
        for token in (second, other):
            assert await world.ask(token) == [200, 200]


async def test_log_out_without_a_session_id(world: World) -> None:
    """A client that is not told of the session gets the user alone: all tokens of the user so far are refused."""
    async with logged_in(world, "plain") as (laptop, (first, second, other)):
        await laptop.log_out()
        assert json.loads(await world.line())["sent"] == "plain"
        await world.refused(first)
        await world.refused(second)
        assert await world.ask(other) == [200, 200]
