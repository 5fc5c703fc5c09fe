"""What a type checker knows of guards. Nothing here is run; see `make types`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import aiohttp.web
import fastapi

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import RevocationList
from jwt_events.guard import Admission, Guard

Claims = dict[str, Any]


@dataclass
class _User:
    id: str


class _Decoder:
    """Decodes tokens in every way that a guard accepts."""

    def claims(self, token: str) -> Claims:
        return {"jti": token}

    async def claims_later(self, token: str) -> Claims:
        return {"jti": token}

    def claims_or_none(self, token: str) -> Claims | None:
        return {"jti": token} if token else None

    async def claims_or_none_later(self, token: str) -> Claims | None:
        return {"jti": token} if token else None

    def user(self, token: str) -> _User:
        return _User(token)

    async def user_later(self, token: str) -> _User:
        return _User(token)


def _mapping_of(user: _User) -> Mapping[str, object]:
    return {"sub": user.id}


async def _mapping_of_later(user: _User) -> Mapping[str, object]:
    return {"sub": user.id}


def by_claims(revocations: RevocationList, decode: _Decoder, anything: Any) -> None:
    """What a guard returns is what `decode` returns, awaited, and never `None`, which is no token that is valid."""
    assert_type(Guard(revocations, decode.claims), Guard[Claims])
    assert_type(Guard(revocations, decode.claims_later), Guard[Claims])
    assert_type(Guard(revocations, decode.claims_or_none), Guard[Claims])
    assert_type(Guard(revocations, decode.claims_or_none_later), Guard[Claims])
    assert_type(Guard(revocations, lambda token: {"jti": token}), Guard[dict[str, str]])
    assert_type(Guard(revocations, decode.claims, claims_of=lambda claims: claims["claims"]), Guard[Claims])
    assert_type(Guard(revocations, anything), Guard[Any])


def by_model(revocations: RevocationList, decode: _Decoder) -> None:
    """What is no mapping needs `claims_of`."""
    assert_type(Guard(revocations, decode.user, claims_of=_mapping_of), Guard[_User])
    assert_type(Guard(revocations, decode.user_later, claims_of=_mapping_of), Guard[_User])
    assert_type(Guard(revocations, decode.user_later, claims_of=_mapping_of_later), Guard[_User])
    assert_type(Guard(revocations, decode.user, claims_of=lambda user: {"sub": user.id}), Guard[_User])
    assert_type(Guard(revocations, decode.user_later, claims_of=lambda user: {"sub": user.id}), Guard[_User])
    Guard(revocations, decode.user)  # type: ignore[arg-type]  # the mistake that is to be found
    Guard(revocations, decode.user_later)  # type: ignore[arg-type]  # another one
    Guard(revocations, decode.claims, claims_of=_mapping_of)  # type: ignore[arg-type]  # and another one


def by_option(revocations: RevocationList, decode: _Decoder, flag: bool) -> None:
    """A guard that may let requests in without a token returns `None` for them."""
    assert_type(Guard(revocations, decode.claims, optional=False), Guard[Claims])
    assert_type(Guard(revocations, decode.claims, optional=True), Guard[Claims | None])
    assert_type(Guard(revocations, decode.claims_later, optional=flag), Guard[Claims | None])
    assert_type(Guard(revocations, decode.user, claims_of=_mapping_of, optional=True), Guard[_User | None])
    assert_type(Guard(revocations, decode.user_later, claims_of=_mapping_of, optional=flag), Guard[_User | None])
    Guard(revocations, decode.claims, optinal=True)  # type: ignore[call-overload]  # no such option


def narrower(revocations: RevocationList, decode: _Decoder) -> list[Guard[Mapping[str, object] | None]]:
    """A guard of narrower values serves as one of wider ones."""
    guard: jwt_events.fastapi.BearerGuard[Mapping[str, Any]] = jwt_events.fastapi.BearerGuard(
        revocations, decode.claims_later, realm="api", cookie="token"
    )
    return [guard, Guard(revocations, decode.claims, optional=True)]


async def in_fastapi(revocations: RevocationList, decode: _Decoder, request: fastapi.Request) -> None:
    """The guard of FastAPI, and that of its WebSockets."""
    guard = jwt_events.fastapi.BearerGuard(revocations, decode.claims_later)
    assert_type(guard, jwt_events.fastapi.BearerGuard[Claims])
    assert_type(await guard(request), Claims)
    assert_type(await guard.admission(request), Admission[Claims])
    optional = jwt_events.fastapi.BearerGuard(revocations, decode.user_later, claims_of=_mapping_of, optional=True)
    assert_type((await optional.admission(request)).value, _User | None)
    assert_type(jwt_events.fastapi.WebSocketGuard(guard), jwt_events.fastapi.WebSocketGuard[Claims])


async def in_aiohttp(revocations: RevocationList, decode: _Decoder, request: aiohttp.web.Request) -> None:
    """The guard of aiohttp."""
    guard = jwt_events.aiohttp.BearerGuard(revocations, decode.user_later, claims_of=_mapping_of)
    assert_type(guard, jwt_events.aiohttp.BearerGuard[_User])
    assert_type(guard.claims(request), _User)
    optional = jwt_events.aiohttp.BearerGuard(revocations, decode.claims_later, optional=True)
    assert_type(await optional.admission(request), Admission[Claims | None])
