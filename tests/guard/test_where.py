"""Where the token of a request is read from: the header, another one, a cookie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, RevocationList
from jwt_events.guard import Guard, PositionFrom, Refused
from jwt_events.guard._where import AmbiguousToken, TokenSource
from tests.support.services import Service, serving
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled


def found(source: TokenSource, **headers: Sequence[str]) -> Any:
    """Return the token that a source finds, or that it found several; check that `is_used` agrees."""

    def values_of(name: str) -> Sequence[str]:
        return headers.get(name.replace("-", "_"), ())

    try:
        token = source.find(values_of)
    except AmbiguousToken:
        return AmbiguousToken
    assert source.is_used(values_of) is (token is not None)
    return token


class TestSource:
    """The places, without a server."""

    def test_authorization(self) -> None:
        """Only the scheme ``Bearer`` brings a token there, and two headers are too many."""
        source = TokenSource("Authorization", None)
        assert found(source, authorization=["Bearer a.b"]) == "a.b"
        assert found(source, authorization=[" bEaReR  a.b "]) == "a.b"
        assert found(source, authorization=["Bearer"]) == ""
        assert found(source, authorization=["Basic abc"]) is None
        assert found(source) is None
        assert found(source, authorization=["Basic abc", "Bearer a.b"]) is AmbiguousToken
        assert found(source, cookie=["Authorization=a.b"]) is None

    @pytest.mark.parametrize("after", ["\t", "\xa0", ":", ",", "=", '"', "/", ";", "\t "])
    @pytest.mark.parametrize("before", ["", " ", "\t"])
    @pytest.mark.parametrize("scheme", ["Bearer", "bEARER"])
    def test_not_a_space(self, before: str, scheme: str, after: str) -> None:
        """A scheme that something else than a space follows is malformed, and not another scheme or no token."""
        assert found(TokenSource("Authorization", None), authorization=[f"{before}{scheme}{after}a.b"]) == ""
        assert found(TokenSource("X-Token", None), x_token=[f"{before}{scheme}{after}a.b"]) == ""

    @pytest.mark.parametrize("scheme", ["BearerX", "Bearer-x", "XBearer", "Bearer1", "Bear"])
    def test_other_schemes(self, scheme: str) -> None:
        """A scheme whose name only begins like it is another one."""
        assert found(TokenSource("Authorization", None), authorization=[f"{scheme} a.b"]) is None

    def test_other_header(self) -> None:
        """Another header needs no scheme, and then ``Authorization`` is not read."""
        source = TokenSource("X-Forwarded-Access-Token", None)
        assert found(source, x_forwarded_access_token=["a.b"]) == "a.b"
        assert found(source, x_forwarded_access_token=["Bearer a.b"]) == "a.b"
        assert found(source, x_forwarded_access_token=[" "]) is None
        assert found(source, x_forwarded_access_token=["a.b", "a.b"]) is AmbiguousToken
        assert found(source, authorization=["Bearer a.b"]) is None

    def test_cookie(self) -> None:
        """The cookie with exactly this name is read, from one header field or several; an empty one is none."""
        source = TokenSource("Authorization", "__Host-token")
        assert found(source, cookie=["a=1; __Host-token=a.b; c=3"]) == "a.b"
        assert found(source, cookie=["a=1", '__Host-token="a.b="']) == "a.b="
        assert found(source, cookie=["__Host-token=a.b"], authorization=["Basic abc"]) == "a.b"
        for none in ("__host-token=a.b", "x__Host-token=a.b", "a=__Host-token=a.b", "__Host-token=", '__Host-token=""'):
            assert found(source, cookie=[none]) is None, none

    @pytest.mark.parametrize(
        "headers",
        [
            {"cookie": ["t=a.b"], "authorization": ["Bearer a.b"]},
            {"cookie": ["t=a.b"], "authorization": ["Bearer"]},
            {"cookie": ["t=a.b; t=a.b"]},
            {"cookie": ["t=a.b", "t=c.d"]},
            {"cookie": ["t=; t=a.b"]},
            {"cookie": ["t=a.b"], "authorization": ["Basic a", "Basic b"]},
        ],
    )
    def test_ambiguous(self, headers: Mapping[str, Sequence[str]]) -> None:
        """Two tokens are refused, also if they are equal: another reader may take the other one."""
        assert found(TokenSource("Authorization", "t"), **headers) is AmbiguousToken

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_any_cookie_header(self, before: str, after: str) -> None:
        """Whatever stands around the cookie, it is found, or the request is refused, or it is no cookie of its own."""
        source = TokenSource("Authorization", "t")
        assert found(source, cookie=[f"{before};t=a.b;{after}"]) in ("a.b", AmbiguousToken)


class TestOptions:
    """Names that cannot be meant."""

    @pytest.mark.parametrize("option", ["cookie", "header"])
    @pytest.mark.parametrize("name", ["", " ", "a b", "a;b", "a=b", 'a"b', "a,b", "tökén", "a\n", "x" * 257, 7, b"a"])
    def test_refused(self, option: str, name: Any) -> None:
        """A name that no cookie or header can have is refused at construction; the error names the option."""
        revocations = RevocationList(MemoryTransport())
        for kind in (Guard, jwt_events.fastapi.BearerGuard, jwt_events.aiohttp.BearerGuard):
            with pytest.raises(InvalidOption, match=option):
                kind(revocations, decode, **{option: name})

    @pytest.mark.parametrize("name", ["Cookie", "Host", "Set-Cookie", "Proxy-Authorization", None])
    def test_headers_without_a_token(self, name: Any) -> None:
        """A header that never carries a token alone is refused; for a cookie there is advice."""
        with pytest.raises(InvalidOption) as caught:
            Guard(RevocationList(MemoryTransport()), decode, header=name)
        assert ("cookie=" in str(caught.value)) is (name == "Cookie")


@pytest.fixture(params=["aiohttp", "fastapi"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """Return a running service whose guard takes tokens from a cookie, too."""
    revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
    async with serving(request.param, revocations, decode, cookie="token") as service:
        yield service


class TestServed:
    """Cookies and headers over real servers."""

    async def test_requests(self, service: Service) -> None:
        """The cookie or the header lets in, both together are a 400, and a bad cookie is a 401."""
        token, other = token_of(), token_of(exp=1)
        async with httpx.AsyncClient(base_url=service.url, timeout=scaled(30)) as client:

            async def status(**headers: str) -> int:
                return (await client.get("/me", headers=headers)).status_code

            assert await status(Cookie=f"a=b; token={token}") == 200
            assert await status(**bearer(token)) == 200
            assert await status(Cookie="token=", **bearer(token)) == 200
            assert await status(Cookie=f"token={token}", Authorization="Basic abc") == 200
            assert await status(Cookie=f"token={token}", **bearer(token)) == 400
            assert await status(Cookie=f"token={token}; token={token}") == 400
            assert await status(Cookie=f"token={other}") == 401
            assert await status(Cookie=f"Token={token}") == 401
            assert await status(Cookie="token=a,b") == 400

    async def test_websockets(self, service: Service) -> None:
        """A WebSocket takes the cookie, and does not look elsewhere then."""
        token, other = token_of(), token_of(exp=1)
        there = f"ws://{service.address}"
        for path, cookie in ((f"/feed?token={other}", token), (f"/browser?token={other}", token)):
            async with connect(there + path, additional_headers={"Cookie": f"token={cookie}"}) as websocket:
                await websocket.send("hello")
                assert await websocket.recv() == "alice: hello"
        for path, headers in (
            (f"/browser?token={token}", {"Cookie": f"token={other}"}),
            ("/feed", {"Cookie": f"token={token}"} | bearer(token)),
            (f"/browser?token={token}", {"Cookie": f"token={token}; token={token}"}),
        ):
            with pytest.raises(InvalidStatus) as caught:
                await connect(there + path, additional_headers=headers).__aenter__()
            assert caught.value.response.status_code in (400, 401)


@asynccontextmanager
async def _client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


async def test_header_of_a_proxy() -> None:
    """The header that a proxy fills is read alone, and is what the documentation page shows."""
    async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
        guard = jwt_events.fastapi.BearerGuard(revocations, decode, header="Cf-Access-Jwt-Assertion")
        app = FastAPI()

        @app.get("/me", dependencies=[Depends(guard)])
        async def me() -> str:
            return "me"

        async with _client_of(app) as client:
            token = token_of()
            assert (await client.get("/me", headers={"cf-access-jwt-assertion": token})).status_code == 200
            assert (await client.get("/me", headers=bearer(token))).status_code == 401
            schema = (await client.get("/openapi.json")).json()
        assert list(schema["components"]["securitySchemes"].values()) == [
            {"type": "apiKey", "in": "header", "name": "cf-access-jwt-assertion"}
        ]


@pytest.mark.parametrize("optional", [True, False])
async def test_absent_headers(optional: bool) -> None:
    """What frameworks return for a header that is missing is no header, also in a list."""
    async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
        guard = Guard(revocations, decode, optional=optional, cookie="token", at_least=PositionFrom(header="at"))
        for absent in (None, [], (), [None]):
            if optional:
                assert (await guard.admit(absent, cookie=absent, at_least=absent)).is_anonymous
            else:
                with pytest.raises(Refused) as caught:
                    await guard.admit(absent, cookie=absent, at_least=absent)
                assert caught.value.code == "missing_token"


@pytest.mark.parametrize("values", [b"Bearer a.b.c", [b"Bearer a.b.c"], 7, [7], True])
@pytest.mark.parametrize("name", ["authorization", "cookie", "at_least"])
async def test_not_text(name: str, values: Any) -> None:
    """Values that are not text, as in the scope of ASGI, are refused by name, whatever the request is."""
    guard = Guard(RevocationList(MemoryTransport()), decode, optional=True)
    with pytest.raises(InvalidOption, match=f"{name}: must be"):
        await guard.admit(**{"authorization": None, name: values})


async def test_without_a_framework() -> None:
    """`Guard.admit` takes the values of the cookie headers beside those of the other."""
    async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
        guard = Guard(revocations, decode, cookie="token")
        token = token_of()
        for cookie in (f"token={token}", [f"a=b; token={token}"]):
            assert (await guard.admit([], cookie=cookie)).value["sub"] == "alice"
        for authorization, cookie in (([f"Bearer {token}"], [f"token={token}"]), ([], [f"token={token};token=x"])):
            with pytest.raises(Refused) as caught:
                await guard.admit(authorization, cookie=cookie)
            assert caught.value.status == 400
