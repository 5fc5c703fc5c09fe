"""`Guard`: verification, claims, refusals, streaming and readiness, without a web framework."""

from __future__ import annotations

import asyncio
import math
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import web
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    Closed,
    ConnectionFailed,
    InvalidClaims,
    InvalidOption,
    KeyRotated,
    KeysUnavailable,
    MemoryTransport,
    RevocationList,
    RevokedTokenError,
    TokenRevoked,
    Unavailable,
    UnknownKey,
)
from jwt_events.guard import Admission, Guard, Refused, readiness_of, until_revoked
from tests.support.examples import all_that_is_said
from tests.support.handling import publish, soon
from tests.support.records import recorded, watching
from tests.support.tokens import KID, decode, token_of
from tests.support.waiting import wait_until

MARK = "-".join(["marked", "as", "secret"])
CLAIMS = {"sub": "alice", "jti": "token-1", "iat": 1}


class IgnoringCase(Mapping[str, Any]):
    """Claims whose names may be written in any case."""

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._claims = claims

    def __getitem__(self, name: str) -> Any:
        return self._claims[name.upper()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)


class IgnoringCaseOnce(dict[str, Any]):
    """The same, of a library that thought of `get` alone."""

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return a claim."""
        return super().get(name.upper(), default)


def fresh_list() -> RevocationList:
    """Return a list that is not open, and allows tokens all the same, as if it were current."""
    revocations = RevocationList(MemoryTransport())
    revocations._view.current_as_of = revocations._view.fresh_until = math.inf
    return revocations


def guard_that_raises(error: Exception) -> Guard[Mapping[str, Any]]:
    """Return a guard whose verification raises an error."""

    def fail(token: str) -> Mapping[str, Any]:
        raise error

    return Guard(fresh_list(), fail)


async def refused_by(guard: Guard[Any], token: str = "a.b.c") -> Refused:
    """Return the reason for which a token is refused."""
    with pytest.raises(Refused) as caught:
        await guard.admit([f"Bearer {token}"])
    return caught.value


class TestVerification:
    """Errors of the application's ``decode``."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ValueError(MARK), "invalid_token"),
            (KeyError(MARK), "invalid_token"),
            (InvalidClaims("sub", "is wrong"), "invalid_token"),
            (RevokedTokenError("user"), "revoked_token"),
            (Refused("missing_token"), "missing_token"),
            (UnknownKey(MARK), "invalid_token"),
            (KeysUnavailable(MARK), "unavailable"),
            (Unavailable(MARK), "unavailable"),
            (ConnectionFailed(MARK), "unavailable"),
            (Closed(MARK), "unavailable"),
            (ConnectionRefusedError(MARK), "unavailable"),
            (TimeoutError(MARK), "unavailable"),
            (TypeError(MARK), "invalid_token"),
        ],
    )
    async def test_errors(self, error: Exception, code: str) -> None:
        """Every exception of ``decode`` refuses the token, and nothing of it is in the refusal."""
        with watching(MARK):
            refused = await refused_by(guard_that_raises(error))
        assert refused.code == code
        assert MARK not in all_that_is_said(refused) + str(refused.body) + str(refused.headers)

    @pytest.mark.parametrize("error", [TypeError(MARK), AttributeError(MARK), RecursionError(MARK), NameError(MARK)])
    async def test_mistakes_are_logged(self, error: Exception) -> None:
        """An exception that looks like a mistake in the program is logged as an error, with its type and place."""
        with watching(MARK) as records:
            await refused_by(guard_that_raises(error))
        (fields,) = records.of("token refused, verifying it failed", "ERROR")
        assert fields["error"].startswith(f"{type(error).__name__} at {__file__.rpartition('/')[2]}:")

    async def test_bad_tokens_are_not(self) -> None:
        """An invalid token is not logged as an error."""
        with recorded() as records:
            await refused_by(Guard(fresh_list(), decode))
        assert [record["level"].name for record in records] == ["DEBUG"]

    @pytest.mark.parametrize(
        ("returned", "claim", "problem"),
        [
            (None, "claims", "decode must return them"),
            ({}, "claims", "decode must return those of the token"),
            (MappingProxyType({}), "claims", "are empty"),
            (web.HTTPUnauthorized(), "claims", "or raise an error"),
            (web.Response(status=401), "claims", "are empty"),
            (HTTPException(401), "claims", "or raise an error"),
            (ValueError(MARK), "claims", "or raise an error"),
            (object(), "claims", "not object"),
            ({"sub": 7}, "sub", "must be text, not int"),
            ({"iat": "now"}, "iat", "not str"),
        ],
    )
    async def test_unusable_claims(self, returned: Any, claim: str, problem: str) -> None:
        """Claims that cannot be checked are refused, and the log says which and why.

        A response that is returned instead of raised is a mapping in aiohttp.
        """
        with watching(MARK) as records:
            refused = await refused_by(Guard(fresh_list(), lambda token: returned))
        assert refused.code == "invalid_token"
        (fields,) = records.of("token refused, its claims cannot be checked", "ERROR")
        assert fields["claim"] == claim
        assert problem in fields["problem"]

    @pytest.mark.parametrize("returned", [{}, web.Response(status=403), web.HTTPForbidden(), ValueError(), None])
    async def test_no_claims_of(self, returned: Any) -> None:
        """The same for what ``claims_of`` makes of a value."""
        guard: Guard[str] = Guard(fresh_list(), lambda token: token, claims_of=lambda value: returned)
        assert (await refused_by(guard)).code == "invalid_token"

    async def test_cancelled(self) -> None:
        """A task that is cancelled while a token is verified is cancelled."""

        async def never(token: str) -> Mapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.create_task(Guard(fresh_list(), never).admit_token("a.b.c"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("option", ["decode", "claims_of"])
    async def test_cancelled_from_within(self, option: str) -> None:
        """If what ``decode`` waits for is cancelled, but not the request, it is not known whether the token is good."""
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()

        async def wait(value: Any) -> Any:
            return await shared

        for function in (wait, lambda value: shared.result()):
            functions: dict[str, Any] = {"decode": lambda token: CLAIMS} | {option: function}
            refused = await refused_by(Guard(fresh_list(), **functions))
            assert (refused.code, refused.status) == ("unavailable", 503)

    async def test_closed_list(self) -> None:
        """A list that is not open is stale: clients are told to retry when a proof could have arrived."""
        refused = await refused_by(Guard(RevocationList(MemoryTransport(), max_staleness=2.5), decode), token_of())
        assert (refused.code, refused.status, refused.headers) == ("stale_revocations", 503, {"Retry-After": "3"})

    async def test_one_value(self) -> None:
        """Text is the value of one header."""
        assert (await Guard(fresh_list(), decode).admit(f"Bearer {token_of()}")).value["sub"] == "alice"

    async def test_too_long(self) -> None:
        """A token that is too long is refused unread."""
        guard = Guard(fresh_list(), lambda token: {"sub": token}, max_token_bytes=10)
        assert (await guard.admit(["Bearer " + "x" * 10])).claims == {"sub": "x" * 10}
        assert (await refused_by(guard, "x" * 11)).code == "invalid_request"


def encoded(header: bytes) -> str:
    """Encode the header of a token."""
    return urlsafe_b64encode(header).decode().rstrip("=")


NO_KEY = [b"{}", b'{"kid": null}', b' {"alg": "HS256", "jwk": {"x5c": []}} ']


@dataclass
class User:
    """A model that an application decodes its tokens to."""

    name: str


class TestClaims:
    """The claims that are checked."""

    async def test_own_type(self) -> None:
        """The decoded value is returned unchanged, and checked by the claims that ``claims_of`` returns."""
        transport = MemoryTransport()
        async with RevocationList(transport) as revocations:
            guard = Guard(revocations, User, claims_of=lambda user: {"sub": user.name})
            admission = await guard.admit_token("alice")
            assert (admission.value, admission.claims) == (User("alice"), {"sub": "alice"})
            await publish(transport, TokenRevoked(user_id="alice"))
            await wait_until(lambda: not revocations.check(admission.claims))
            assert (await refused_by(guard, "alice")).code == "revoked_token"
            assert (await guard.admit_token("bob")).value == User("bob")

    async def test_key(self) -> None:
        """The ``kid`` of a token is checked, and is not added to the value that the application gets."""
        revocations = fresh_list()
        guard = Guard(revocations, decode)
        token = token_of()
        admission = await guard.admit_token(token)
        assert admission.claims == {**decode(token), "kid": KID}
        assert admission.value == decode(token)
        revocations.apply(KeyRotated(key_id=KID, compromised=True))
        assert (await refused_by(guard, token)).code == "revoked_token"

    @pytest.mark.parametrize("kind", [IgnoringCase, IgnoringCaseOnce])
    @pytest.mark.parametrize("kid", [None, KID])
    async def test_mapping_that_knows_more_names(self, kind: type[Any], kid: str | None) -> None:
        """Claims that a mapping does not list, but knows, are checked, also beside the ``kid`` of the header."""
        revocations = fresh_list()
        guard = Guard(revocations, lambda token: kind({name.upper(): value for name, value in decode(token).items()}))
        admission = await guard.admit_token(token_of(kid=kid, org_id="acme"))
        assert [admission.claims.get(name) for name in ("sub", "kid", "other")] == ["alice", kid, None]
        revocations.apply(TokenRevoked(claims={"org_id": "acme"}))
        assert (await refused_by(guard, token_of(kid=kid, org_id="acme"))).code == "revoked_token"
        revocations.apply(TokenRevoked(user_id="alice"))
        assert (await refused_by(guard, token_of(kid=kid))).code == "revoked_token"

    @pytest.mark.parametrize("token", ["opaque", "ya29.opaque", *(f"{encoded(text)}.b.c" for text in NO_KEY)])
    async def test_no_key(self, token: str) -> None:
        """A token without a ``kid``, or one that does not have the form of a JWT, is checked by its claims alone."""
        guard = Guard(fresh_list(), lambda token: CLAIMS)
        assert (await guard.admit_token(token)).claims == CLAIMS

    async def test_strange_key(self) -> None:
        """A token whose ``kid`` is not text is refused."""
        token = encoded(b'{"kid": 7}') + ".b.c"
        assert (await refused_by(Guard(fresh_list(), lambda token: CLAIMS), token)).code == "invalid_token"


class TestResponses:
    """Responses to refused requests."""

    @given(st.lists(st.text() | st.text().map("Bearer ".__add__), max_size=3), st.booleans())
    def test_whatever_comes(self, authorization: list[str], has_realm: bool) -> None:
        """Whatever a client sends, it is let in, or gets a response that fits into headers."""
        guard = Guard(fresh_list(), lambda token: CLAIMS, realm="a realm" if has_realm else None)
        refused = None
        try:
            asyncio.run(guard.admit(authorization))
        except Refused as error:
            refused = error
        if refused is None:
            assert len(authorization) == 1
        else:
            assert refused.status in (400, 401)
            assert all(text.isascii() and text.isprintable() for text in refused.headers.values())

    @pytest.mark.parametrize(
        ("seconds", "header"), [(None, "1"), (0.0, "1"), (1.2, "2"), (math.inf, "3600"), (math.nan, "1"), (-5.0, "1")]
    )
    def test_retry_after(self, seconds: float | None, header: str) -> None:
        """``Retry-After`` is at least a second and at most an hour."""
        assert Refused("unavailable", retry_after=seconds).headers == {"Retry-After": header}

    def test_representations(self) -> None:
        """Representations, which may appear in tracebacks, contain no claims."""
        admission = Admission(MARK, {"sub": MARK})
        assert MARK not in repr(admission) + repr(Guard(fresh_list(), decode))

    @pytest.mark.parametrize(
        ("option", "options"),
        [
            ("revocations", {"revocations": None}),
            ("decode", {"decode": "decode"}),
            ("claims_of", {"claims_of": None}),
            ("realm", {"realm": 'a "quoted" realm'}),
            ("realm", {"realm": "é"}),
            ("max_token_bytes", {"max_token_bytes": 0}),
        ],
    )
    def test_options(self, option: str, options: dict[str, Any]) -> None:
        """An invalid option is refused with its name."""
        with pytest.raises(InvalidOption) as caught:
            Guard(**{"revocations": fresh_list(), "decode": decode, **options})
        assert caught.value.option == option


class TestUntilRevoked:
    """`until_revoked`: items until the token is revoked."""

    async def test_revoked_while_waiting(self) -> None:
        """The iterator is cancelled where it waits, and no item follows."""
        transport = MemoryTransport()
        ended = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            try:
                async with asyncio.timeout(None):  # may be exited only in the task that entered it
                    yield 1
                    yield 2
                    await asyncio.Event().wait()
            finally:
                ended.set()

        async with RevocationList(transport) as revocations:
            seen = []
            async for item in until_revoked(revocations, CLAIMS, items()):
                seen.append(item)
                if item == 2:
                    await publish(transport, TokenRevoked(token_id="token-1"))
            assert (seen, ended.is_set()) == ([1, 2], True)
            assert [item async for item in until_revoked(revocations, CLAIMS, items())] == []

    async def test_items_end(self) -> None:
        """The end of the items, or their error, is passed on."""

        async def items(*, fail: bool) -> AsyncIterator[int]:
            yield 1
            if fail:
                raise LookupError

        async with RevocationList(MemoryTransport()) as revocations:
            assert [item async for item in until_revoked(revocations, CLAIMS, items(fail=False))] == [1]
            with pytest.raises(LookupError):
                [item async for item in until_revoked(revocations, CLAIMS, items(fail=True))]

    async def test_left_early(self) -> None:
        """Closing `until_revoked` early closes the iterator of the items."""
        ended = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                ended.set()

        async with RevocationList(MemoryTransport()) as revocations:
            async with aclosing(until_revoked(revocations, CLAIMS, items())) as passed_on:
                assert await soon(anext(passed_on)) == 1
            assert ended.is_set()


class TestReadiness:
    """`readiness_of`: the response to a readiness probe."""

    async def test_states(self) -> None:
        """One list that is not fresh makes the service not ready; an infinite age becomes ``None``."""
        closed = RevocationList(MemoryTransport())
        async with RevocationList(MemoryTransport()) as fresh:
            status, body = readiness_of(fresh)
            assert (status, body["ready"], body["revocations"][0]["state"]) == (200, True, "fresh")
            assert 0 <= body["revocations"][0]["staleness"] < 60
            status, body = readiness_of(fresh, closed)
            assert (status, body["ready"]) == (503, False)
            assert body["revocations"][1] == {"state": "closed", "staleness": None}

    def test_no_list(self) -> None:
        """Readiness without a list is refused."""
        with pytest.raises(InvalidOption):
            readiness_of()
