"""A ``decode`` that cannot reach what it needs: 503, so that clients keep their tokens."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import closing
from socket import socket
from typing import Any

import aiohttp
import httpx
import jwt
import pytest
import redis.asyncio
import redis.exceptions

from jwt_events import MemoryTransport, RevocationList
from jwt_events.guard import Guard, Refused
from tests.support.tokens import token_of


async def _refusal_of(decode: Callable[[str], Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        await Guard(RevocationList(MemoryTransport()), decode).admit_token(token_of())
    return caught.value


def _closed_port() -> str:
    """Return the address of a port at which nothing listens."""
    with closing(socket()) as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def _by_pyjwt(address: str) -> Callable[[str], Any]:
    client = jwt.PyJWKClient(f"http://{address}/jwks")
    return lambda token: asyncio.to_thread(client.get_signing_key_from_jwt, token)


def _by_urllib(address: str) -> Callable[[str], object]:
    return lambda token: asyncio.to_thread(urllib.request.urlopen, f"http://{address}")


def _by_httpx(address: str) -> Callable[[str], object]:
    async def decode(token: str) -> object:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://{address}")

    return decode


def _by_aiohttp(address: str) -> Callable[[str], object]:
    async def decode(token: str) -> object:
        async with aiohttp.ClientSession() as session:
            return await session.get(f"http://{address}")

    return decode


def _by_redis(address: str) -> Callable[[str], object]:
    async def decode(token: str) -> object:
        async with redis.asyncio.Redis.from_url(f"redis://{address}") as client:
            return await client.get("key")

    return decode


def _raised(error: BaseException) -> Callable[[str], object]:
    def decode(token: str) -> object:
        raise error

    return decode


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _reply_of_httpx(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1")
    return httpx.HTTPStatusError("refused", request=request, response=httpx.Response(status, request=request))


def _reply_of_aiohttp(status: int) -> aiohttp.ClientResponseError:
    request: Any = None  # only its message looks at it
    return aiohttp.ClientResponseError(request, (), status=status)


def _reply_of_urllib(status: int) -> urllib.error.HTTPError:
    headers: Any = None
    return urllib.error.HTTPError("http://127.0.0.1", status, "refused", headers, None)


class TestUnreachable:
    """What says nothing about the token."""

    @pytest.mark.parametrize("kind", [_by_pyjwt, _by_urllib, _by_httpx, _by_aiohttp, _by_redis])
    async def test_nothing_listens(self, kind: Callable[[str], Callable[[str], Awaitable[object]]]) -> None:
        """The real error of each library, at a port where nothing listens."""
        refused = await _refusal_of(kind(_closed_port()))
        assert (refused.code, refused.status) == ("unavailable", 503)
        assert int(refused.headers["Retry-After"]) >= 1

    @pytest.mark.parametrize(
        "error",
        [
            httpx.ReadTimeout("late"),
            aiohttp.ServerDisconnectedError(),
            redis.exceptions.TimeoutError("late"),
            _caused(ValueError("no key"), httpx.ConnectError("away")),
            _caused(RuntimeError("no key"), _caused(KeyError("kid"), aiohttp.ClientPayloadError())),
            ExceptionGroup("both", [ValueError("odd"), httpx.ConnectError("away")]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_errors(self, error: Exception) -> None:
        """The error itself, its cause, or one of its group."""
        assert (await _refusal_of(_raised(error))).status == 503

    @pytest.mark.parametrize("reply", [_reply_of_httpx, _reply_of_aiohttp, _reply_of_urllib])
    @pytest.mark.parametrize(("status", "expected"), [(500, 503), (502, 503), (429, 503), (401, 401), (404, 401)])
    async def test_replies(self, reply: Callable[[int], Exception], status: int, expected: int) -> None:
        """A service that refuses the token has decided about it; one that is broken or busy has not."""
        assert (await _refusal_of(_raised(reply(status)))).status == expected

    async def test_circle(self) -> None:
        """Errors that are each other's cause end in a refusal."""
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        assert (await _refusal_of(_raised(first))).status == 401
