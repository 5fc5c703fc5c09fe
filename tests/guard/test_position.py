"""Read your own logout: a request that names a position is not let in before that is in force here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from jwt_events import (
    InvalidOption,
    MemoryTransport,
    Publisher,
    RedisStream,
    RegionalStreams,
    RevocationList,
    TokenRevoked,
)
from jwt_events.guard import Guard, PositionFrom, Refused
from jwt_events.guard._position import Awaited
from jwt_events.guard._where import TokenSource
from tests.support.asgi_services import FRAMEWORKS, serving
from tests.support.handling import publish, soon
from tests.support.proxy import Proxy
from tests.support.services import Service
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled, wait_until

AT_LEAST = PositionFrom(header="Logged-Out-At", cookie="logged-out-at")
FUTURE = f"{2**63}-0"


def found(where: PositionFrom, **headers: Sequence[str]) -> list[str]:
    """Return the positions in headers."""
    return [*where.find(lambda name: headers.get(name.replace("-", "_"), ()))]


class TestWhere:
    """The places where a request names a position, without a server."""

    def test_places(self) -> None:
        """Header and cookie are read, the newest of several counts, and what is empty counts as missing."""
        assert found(AT_LEAST) == []
        assert found(AT_LEAST, logged_out_at=["5-0"]) == ["5-0"]
        assert found(AT_LEAST, logged_out_at=["5-0, 50-1", "6-0"], cookie=["logged-out-at=7-3"]) == ["50-1"]
        assert found(AT_LEAST, logged_out_at=["5-9"], cookie=['a=b; logged-out-at="5-10"']) == ["5-10"]
        assert found(AT_LEAST, logged_out_at=["", " ,"], cookie=["logged-out-at="]) == []
        assert found(PositionFrom(cookie="a"), a=["5-0"], logged_out_at=["5-0"]) == []

    def test_regions(self) -> None:
        """The newest position of each region counts, as there is no order between regions."""
        assert found(AT_LEAST, logged_out_at=["eu:5-0, us:3-1", "eu:6-0"], cookie=["logged-out-at=us:2-9"]) == [
            "eu:6-0",
            "us:3-1",
        ]

    @pytest.mark.parametrize(
        "value", ["5", "-", "a-b", "5-0-1", "5-0 6-0", f"{2**64}-0", "1" * 30 + "-0", "None", "\uff15-0", "5-0\x00"]
    )
    def test_no_position(self, value: str) -> None:
        """What is no position is said to be none, beside good ones, too."""
        for headers in ({"logged_out_at": ["9-0", value]}, {"cookie": [f"logged-out-at={value}"]}):
            with pytest.raises(ValueError, match="not a position"):
                found(AT_LEAST, **headers)

    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({}, "at_least"),
            ({"header": "a b"}, "header"),
            ({"header": "Cookie"}, "header"),
            ({"header": "Authorization"}, "header"),
            ({"header": ""}, "header"),
            ({"cookie": "a;b"}, "cookie"),
            ({"cookie": 5}, "cookie"),
        ],
    )
    def test_refused(self, options: dict[str, Any], option: str) -> None:
        """Names that no header or cookie can have are refused when they are passed."""
        with pytest.raises(InvalidOption, match=f"^{option}"):
            PositionFrom(**options)

    @pytest.mark.parametrize(
        "options",
        [
            {"at_least": "Logged-Out-At"},
            {"at_least": PositionFrom(header="X-Token"), "header": "x-token"},
            {"at_least": PositionFrom(cookie="token"), "cookie": "token"},
        ],
    )
    def test_refused_by_a_guard(self, options: dict[str, Any]) -> None:
        """The place of the token cannot name a position, too."""
        with pytest.raises(InvalidOption, match=r"^at_least"):
            Guard(RevocationList(MemoryTransport()), decode, **options)


@pytest.mark.parametrize("named", ["mars:5-0", "5-0", "eu:1-0, mars:5-0"])
async def test_a_region_that_is_not_followed(named: str) -> None:
    """A list of regions knows no position without its region, nor one of another region: a malformed request."""
    regions = RegionalStreams(RedisStream("redis://127.0.0.1:1/0"), RedisStream("redis://127.0.0.1:1/1"))
    waiting = Awaited(RevocationList(regions), AT_LEAST, TokenSource("Authorization", None), None)
    with pytest.raises(Refused) as refused:
        await waiting.wait(lambda name: [named] if name == "logged-out-at" else [])
    assert (refused.value.code, refused.value.status) == ("invalid_position", 400)


class Cut:
    """A service whose list hears nothing any more, although it is not stale yet.

    Attributes:
        service: the service.
        revocations: its list.
        client: its client.
    """

    def __init__(self, service: Service, revocations: RevocationList, client: httpx.AsyncClient, proxy: Proxy) -> None:
        self.service = service
        self.revocations = revocations
        self.client = client
        self._proxy = proxy

    async def get(self, token: str, **headers: str) -> httpx.Response:
        """Request the claims."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get("/me", headers=bearer(token) | named)

    def heal(self) -> None:
        """Let the list hear again."""
        self._proxy.heal()


@pytest.fixture
def serve(request: pytest.FixtureRequest, url: str, key: str) -> Callable[..., Any]:
    """A function that runs a service and cuts its list off; takes the framework and options of the list."""

    @asynccontextmanager
    async def run(framework: str, **options: Any) -> AsyncIterator[Cut]:
        await publish(RedisStream(url, key), TokenRevoked(token_id="another"))
        async with Proxy(url) as proxy:
            revocations = RevocationList(RedisStream(proxy.url, key), **({"max_staleness": scaled(60)} | options))
            async with (
                serving(framework, revocations, decode, at_least=AT_LEAST) as service,
                httpx.AsyncClient(base_url=service.url, timeout=scaled(60)) as client,
            ):
                await wait_until(lambda: revocations.is_fresh, within=30, what="the list of the service")
                proxy.to_client.hold()
                yield Cut(service, revocations, client, proxy)
                proxy.heal()

    return run


@pytest.mark.parametrize("framework", FRAMEWORKS)
class TestFrameworks:
    """Requests to a service that has not heard of an event yet."""

    async def test_waits(self, framework: str, serve: Callable[..., Any], url: str, key: str) -> None:
        """A request with the position waits and gets the right answer; one without is decided about at once."""
        token, other = token_of(), token_of()
        async with serve(framework) as cut:
            position = await revoke(url, key, token)
            assert (await cut.get(token)).status_code == 200  # it knows no better
            assert (await cut.get(token, logged_out_at="0-0")).status_code == 200
            requests = [
                asyncio.create_task(cut.get(token, logged_out_at=position)),
                asyncio.create_task(cut.get(token, cookie=f"logged-out-at={position}")),
                asyncio.create_task(cut.get(other, logged_out_at=position)),
            ]
            await wait_until(lambda: len(cut.revocations._view.progress._waiting) == 3, what="three that wait")
            assert not any(one.done() for one in requests)
            cut.heal()
            statuses = [(await soon(one, within=30)).status_code for one in requests]
            assert statuses == [401, 401, 200]

    async def test_refusals(self, framework: str, serve: Callable[..., Any]) -> None:
        """What is no position is a bad request; without a good token nothing waits."""
        async with serve(framework) as cut:
            response = await cut.get(token_of(), logged_out_at="yesterday")
            assert (response.status_code, response.json()["detail"]["error"]) == (400, "invalid_position")
            assert response.headers["WWW-Authenticate"].startswith('Bearer error="invalid_request"')
            response = await cut.get(token_of(exp=1), logged_out_at=FUTURE)
            assert response.json()["detail"]["error"] == "invalid_token"
            assert (await cut.client.get("/me", headers={"logged-out-at": FUTURE})).status_code == 401
            assert (await cut.client.get("/public", headers={"logged-out-at": FUTURE})).status_code == 200

    async def test_made_up(self, framework: str, serve: Callable[..., Any]) -> None:
        """A position that does not exist holds up one request until the list has proven that, and no other."""
        token = token_of()
        async with serve(framework, max_staleness=scaled(4)) as cut:
            cut.heal()
            request = asyncio.create_task(cut.get(token, logged_out_at=FUTURE))
            assert (await cut.get(token)).status_code == 200
            assert (await soon(request, within=30)).status_code == 200

    async def test_cut_off(self, framework: str, serve: Callable[..., Any]) -> None:
        """A list that hears nothing says 503, also if it lets tokens in when it is stale."""
        token = token_of()
        async with serve(framework, max_staleness=0.3, on_stale="allow") as cut:
            response = await cut.get(token, logged_out_at=FUTURE)
            assert (response.status_code, response.json()["detail"]["error"]) == (503, "stale_revocations")
            assert response.headers["Retry-After"] == "1"
            assert (await cut.get(token)).status_code == 200

    async def test_websocket(self, framework: str, serve: Callable[..., Any], url: str, key: str) -> None:
        """A WebSocket waits, too; browsers send cookies with it."""
        token = token_of()
        async with serve(framework) as cut:
            position = await revoke(url, key, token)
            address = f"ws://{cut.service.address}/feed"
            headers = bearer(token) | {"Cookie": f"logged-out-at={position}"}
            opening = asyncio.ensure_future(_opened(connect(address, additional_headers=headers, open_timeout=None)))
            await _waits(cut.revocations)
            cut.heal()
            with pytest.raises(InvalidStatus) as caught:
                await soon(opening, within=30)
            assert caught.value.response.status_code == 401


async def _opened(connecting: connect) -> None:
    async with connecting:
        pass


async def _waits(revocations: RevocationList) -> None:
    await wait_until(lambda: len(revocations._view.progress._waiting) > 0, what="a request that waits")


async def revoke(url: str, key: str, token: str) -> str:
    """Revoke a token, and return the position of the event."""
    async with Publisher(RedisStream(url, key), timeout=scaled(10)) as publisher:
        position = (await publisher.publish(TokenRevoked.from_claims(decode(token)))).position
    assert position is not None
    return position


class TestGuard:
    """The guard alone."""

    async def test_admit(self, url: str, key: str) -> None:
        """`Guard.admit` takes the values of the header, and finds the cookie itself."""
        token, good = token_of(), token_of()
        position = await revoke(url, key, token)
        async with RevocationList(RedisStream(url, key)) as revocations:
            guard = Guard(revocations, decode, at_least=AT_LEAST)
            for named in ({"at_least": [position]}, {"at_least": position}, {"cookie": [f"logged-out-at={position}"]}):
                assert (await guard.admit([f"Bearer {good}"], **named)).value["sub"] == "alice"
                with pytest.raises(Refused, match="revoked"):
                    await guard.admit([f"Bearer {token}"], **named)
            for wrong in ({"at_least": ["x"]}, {"cookie": ["logged-out-at=x"]}):
                with pytest.raises(Refused) as caught:
                    await guard.admit([f"Bearer {good}"], **wrong)
                assert caught.value.code == "invalid_position"

    async def test_anonymous(self) -> None:
        """A request without a token does not wait."""
        async with RevocationList(MemoryTransport()) as revocations:
            guard = Guard(revocations, decode, at_least=AT_LEAST, optional=True)
            assert (await guard.admit([], at_least=[FUTURE])).is_anonymous

    async def test_verified_again(self, url: str, key: str) -> None:
        """A token that is no longer good after the wait is not let in."""
        calls: list[str] = []

        def once(token: str) -> dict[str, Any]:
            calls.append(token)
            if len(calls) > 1:
                raise ValueError("expired")
            return decode(token)

        async with RevocationList(RedisStream(url, key), max_staleness=scaled(2)) as revocations:
            guard = Guard(revocations, once, at_least=AT_LEAST)
            with pytest.raises(Refused, match="invalid or has expired"):
                await guard.admit([f"Bearer {token_of()}"], at_least=[FUTURE])
            assert len(calls) == 2


class TestWaitFor:
    """`RevocationList.wait_for`."""

    async def test_cancelled(self) -> None:
        """Cancelling leaves nothing behind."""
        async with RevocationList(MemoryTransport(), max_staleness=600) as revocations:
            task = asyncio.create_task(revocations.wait_for(FUTURE))
            await _waits(revocations)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert revocations._view.progress._waiting == set()

    async def test_closed(self) -> None:
        """Closing the list ends the wait; a list that is not open waits for nothing."""
        async with RevocationList(MemoryTransport(), max_staleness=600) as revocations:
            task = asyncio.create_task(revocations.wait_for(FUTURE))
            await _waits(revocations)
        assert await soon(task) is False
        assert await soon(revocations.wait_for(FUTURE)) is False

    async def test_another_loop(self) -> None:
        """In another event loop nothing is waited for, and what is in force is known."""
        async with RevocationList(MemoryTransport(), max_staleness=600) as revocations:

            def elsewhere(position: str) -> bool:
                return asyncio.run(revocations.wait_for(position))

            assert await asyncio.to_thread(elsewhere, "0-0") is True
            assert await asyncio.to_thread(elsewhere, FUTURE) is False

    async def test_older_proof(self) -> None:
        """A proof that was begun before the call does not show that the event does not exist."""
        async with RevocationList(MemoryTransport(), max_staleness=600) as revocations:
            began = time.monotonic()
            task = asyncio.create_task(revocations.wait_for(FUTURE))
            await _waits(revocations)
            revocations._view.record_proof(began - 0.001)
            revocations._view.record_position("5-0", confirm=False)
            await _waits(revocations)
            assert not task.done()
            revocations._view.record_proof(time.monotonic())
            assert await soon(task) is True

    async def test_timeout(self) -> None:
        """It takes no longer than asked for."""
        async with RevocationList(MemoryTransport(), max_staleness=600) as revocations:
            began = time.monotonic()
            assert await revocations.wait_for(FUTURE, timeout=0.05) is False
            assert 0.04 < time.monotonic() - began < scaled(5)
            for wrong in (0, -1, "1", float("nan")):
                with pytest.raises(InvalidOption, match="timeout"):
                    await revocations.wait_for(FUTURE, timeout=wrong)  # type: ignore[arg-type]  # what others pass
            with pytest.raises(InvalidOption, match="position"):
                await revocations.wait_for("x")
