"""Global Token Revocation, as the draft says, in each framework."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI

import jwt_events.aiohttp
import jwt_events.asgi
import jwt_events.fastapi
from jwt_events import (
    InvalidOption,
    MemoryTransport,
    Publisher,
    RedisStream,
    RevocationList,
    TokenRevoked,
    Verdict,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.signals import GLOBAL_TOKEN_REVOCATION, GlobalRevocationEndpoint, Subject, SubjectId
from jwt_events.testing import RecordingPublisher
from tests.support.faults import frozen
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import decode
from tests.support.waiting import wait_until

FRAMEWORKS = ("aiohttp", "asgi", "fastapi")
ISSUER = "https://issuer.example.com/"
SECRET = "Bearer f5641763544a7b24b08e4f74045"
PATH = "/global-token-revocation"
DRAFT = {"draft": GLOBAL_TOKEN_REVOCATION}

# §3.2: the examples of the draft.
EMAIL = {"format": "email", "email": "user@example.com"}
OPAQUE = {"format": "opaque", "id": "e193177dfdc52e3dd03f78c"}
ISS_SUB = {"format": "iss_sub", "iss": ISSUER, "sub": "af19c476f1dc4470fa3d0d9a25"}


def known(subject: SubjectId) -> Subject | str | None:
    """Know some of the subjects of the examples."""
    found: dict[str, Subject | str] = {
        "user@example.com": "alice",
        "e193177dfdc52e3dd03f78c": "bob",
        "session": Subject(session_id="s1"),
    }
    return found.get(subject.value)


@asynccontextmanager
async def serving(framework: str, publisher: Publisher) -> AsyncIterator[str]:
    """Run the endpoint in a framework, behind a guard of the whole application where there is one; return its URL."""
    options: dict[str, Any] = DRAFT | {"authorization": SECRET, "issuer": ISSUER}
    revocations = RevocationList(MemoryTransport())
    if framework == "aiohttp":
        app = web.Application(middlewares=[jwt_events.aiohttp.BearerGuard(revocations, decode).middleware()])
        app.add_routes(jwt_events.aiohttp.global_revocation_router(publisher, known, **options))
        server = aiohttp_server(app)
    elif framework == "fastapi":
        api = FastAPI(dependencies=[Depends(jwt_events.fastapi.BearerGuard(revocations, decode))])
        api.include_router(jwt_events.fastapi.global_revocation_router(publisher, known, **options))
        server = uvicorn_server(api)
    else:
        server = uvicorn_server(_with_lifespan(jwt_events.asgi.global_revocation_router(publisher, known, **options)))
    async with server as address:
        yield f"http://{address}{PATH}"


def _with_lifespan(inner: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
        else:
            await inner(scope, receive, send)

    return app


async def post(url: str, body: Any, authorization: str | None = SECRET, kind: str = "application/json") -> int:
    """Send a request; return the status."""
    headers = {"Content-Type": kind} | ({} if authorization is None else {"Authorization": authorization})
    content = body if isinstance(body, bytes) else json.dumps(body)
    async with httpx.AsyncClient() as client:
        response = await client.post(url, content=content, headers=headers)
    assert response.headers["cache-control"] == "no-store"
    assert (response.status_code == 204) == (response.content == b"")
    return response.status_code


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_statuses(framework: str, url: str, key: str) -> None:
    """The examples of the draft revoke all tokens of their users; each error has its status."""
    stream = RedisStream(url, key)
    async with (
        Publisher(stream) as publisher,
        RevocationList(stream) as revocations,
        serving(framework, publisher) as service,
    ):
        for sub_id, user in ((EMAIL, "alice"), (OPAQUE, "bob"), (ISS_SUB, ISS_SUB["sub"])):
            claims = {"sub": user, "iat": 1}
            assert revocations.check(claims) is Verdict.ALLOW
            assert await post(service, {"sub_id": sub_id}) == 204
            await wait_until(lambda claims=claims: revocations.check(claims) is Verdict.REVOKED)
        assert await post(service, {"sub_id": {"format": "email", "email": "stranger@example.com"}}) == 404
        assert await post(service, {"sub_id": {"format": "opaque", "id": "session"}}) == 422
        bad: list[Any] = [{}, [], {"sub_id": "alice"}, {"sub_id": {"format": "smoke_signal"}}, {"sub_id": {}}, b"{"]
        for body in [*bad, b"\xff"]:
            assert await post(service, body) == 400
        assert await post(service, {"sub_id": EMAIL, "more": 1}) == 400
        assert await post(service, {"sub_id": EMAIL}, kind="text/plain") == 400
        for authorization in (None, "Bearer another", SECRET.lower()):
            assert await post(service, {"sub_id": EMAIL}, authorization) == 401


async def test_a_server_that_is_down(own_server: Callable[[], EmbeddedServer]) -> None:
    """What the server does not have was not done."""
    async with (
        own_server() as server,
        Publisher(RedisStream(server.url), timeout=0.3) as publisher,
        serving("asgi", publisher) as service,
    ):
        with frozen(server):
            assert await post(service, {"sub_id": EMAIL}) == 503

        async def is_done() -> bool:  # the time-out is short
            return await post(service, {"sub_id": EMAIL}) == 204

        await wait_until(is_done)


async def test_the_event() -> None:
    """It revokes what was issued up to now; its metadata says why, and a request that comes again is another event."""
    publisher = RecordingPublisher(MemoryTransport())
    endpoint = GlobalRevocationEndpoint(publisher, None, authorization=SECRET, issuer=ISSUER, **DRAFT)

    async def send(sub_id: Any) -> int:
        async def chunks() -> AsyncIterator[bytes]:
            yield json.dumps({"sub_id": sub_id}).encode()

        headers = [("content-type", "application/json"), ("authorization", SECRET)]
        return (await endpoint.respond("POST", headers, chunks())).status

    assert [await send(ISS_SUB), await send(ISS_SUB)] == [204, 204]
    first, second = publisher.published
    assert isinstance(first, TokenRevoked)
    assert first.issued_before == first.occurred_at
    assert (first.user_id, first.reason) == (ISS_SUB["sub"], "global-token-revocation")
    assert first.metadata == {"issuer": ISSUER, "signal": "global-token-revocation"}
    assert first.id != second.id
    assert await send(EMAIL) == 404  # there is no function to ask
    assert await send(ISS_SUB | {"iss": "https://other.example"}) == 404
    assert await send({"format": "complex", "user": ISS_SUB}) == 204


@pytest.mark.parametrize(
    "options",
    [
        {"draft": "draft-parecki-oauth-global-token-revocation-03"},
        {"draft": True},
        {"authorization": None},
        {"authorization": ""},
        {"subject": 7},
        {"subject": None, "issuer": None},
        {"issuer": ""},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    """The draft must be named, and the sender be known."""
    given: dict[str, Any] = DRAFT | {"subject": known, "authorization": SECRET, "issuer": ISSUER} | options
    subject = given.pop("subject")
    with pytest.raises(InvalidOption):
        GlobalRevocationEndpoint(RecordingPublisher(MemoryTransport()), subject, **given)
