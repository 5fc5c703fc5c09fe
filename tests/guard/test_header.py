"""The `kid` of a token: what the guard reads is what any parser reads, or the token is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import KeyRotated, MemoryTransport, RevocationList
from jwt_events.guard import Guard, Refused
from jwt_events.guard._header import HeaderTooLarge, UnreadableHeader, kid_of
from tests.support.strategies import json_values
from tests.support.tokens import SECRET
from tests.support.waiting import scaled

CLAIMS = {"sub": "alice", "jti": "token-1", "iat": 1}
LEAKED, GOOD = "leaked", "good"


def token_with(header: bytes | str) -> str:
    """Return a token with a header; its signature is verified by nobody."""
    text = header.encode() if isinstance(header, str) else header
    return base64.urlsafe_b64encode(text).decode().rstrip("=") + ".e30.c2ln"


def nested(depth: int) -> str:
    """Return a header with the leaked key, nested this deep."""
    return f'{{"alg":"HS256","kid":"{LEAKED}","x":{"[" * depth}{"]" * depth}}}'


def refusing(leaked: str = LEAKED) -> RevocationList:
    """Return a list that knows of a compromised key, and allows other tokens, as if it were current."""
    revocations = RevocationList(MemoryTransport())
    revocations._view.current_as_of = revocations._view.fresh_until = math.inf
    revocations.apply(KeyRotated(key_id=leaked, compromised=True))
    return revocations


UNREADABLE = {
    "nothing": "",
    "not JSON": "opaque",
    "a list": "[]",
    "a number": "5",
    "twice": f'{{"kid":"{LEAKED}","kid":"{GOOD}"}}',
    "twice, once escaped": f'{{"kid":"{LEAKED}","k\\u0069d":"{GOOD}"}}',
    "twice inside": '{"jwk":{"a":1,"a":2}}',
    "UTF-16": f'{{"kid":"{LEAKED}"}}'.encode("utf-16"),
    "with a mark": b"\xef\xbb\xbf" + f'{{"kid":"{LEAKED}"}}'.encode(),
    "not UTF-8": b'{"kid":"\xff"}',
    "half a character": '{"kid":"\\ud800"}',
    "NaN": f'{{"kid":"{LEAKED}","x":NaN}}',
    "a long number": f'{{"kid":"{LEAKED}","x":{"9" * 4400}}}',
    "a comment": f'{{"kid":"{LEAKED}"}} // {{}}',
    "a number as kid": '{"kid":7}',
    "a list as kid": f'{{"kid":["{LEAKED}"]}}',
}


class TestReading:
    """`kid_of`: which headers are read, and which are refused."""

    @pytest.mark.parametrize("header", UNREADABLE.values(), ids=UNREADABLE)
    async def test_unreadable(self, header: str | bytes) -> None:
        """A header that some parser might read in another way is a refusal, though ``decode`` accepts the token."""
        with pytest.raises(UnreadableHeader):
            kid_of(token_with(header))
        with pytest.raises(Refused) as caught:
            await Guard(refusing(), lambda token: CLAIMS).admit_token(token_with(header))
        assert (caught.value.code, caught.value.status) == ("invalid_token", 401)

    @pytest.mark.parametrize("part", ["e3~0", "e30/", "e3+0", "=e30", "e===", "e", "e30===", ""])
    def test_not_base64url(self, part: str) -> None:
        """Characters that some decoders pass over are not."""
        with pytest.raises(UnreadableHeader):
            kid_of(f"{part}.e30.c2ln")

    @pytest.mark.parametrize("depth", [64, 900, 990, 1100, 100_000])
    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_bounds(self, depth: int, opening: str) -> None:
        """A header that is long or nested deep is refused before it is parsed, at whatever depth of the stack."""
        with pytest.raises(HeaderTooLarge):
            kid_of(token_with(f'{{"kid":"{LEAKED}","x":{opening * depth}'))
        with pytest.raises(HeaderTooLarge):
            kid_of(token_with(f'{{"kid":"{LEAKED}","x":"{"x" * 8200}"}}'))

    @pytest.mark.parametrize("pad", ["", "="])
    def test_readable(self, pad: str) -> None:
        """Padding is accepted; fewer than three parts are no JWT."""
        first = base64.urlsafe_b64encode(b'{"kid":"k1"}').decode().rstrip("=")
        assert kid_of(f"{first}{pad * (-len(first) % 4)}.e30.c2ln") == "k1"
        assert kid_of(f"{first}.e30.a.b.c") == "k1"
        assert (kid_of(first), kid_of(f"{first}.e30"), kid_of("")) == (None, None, None)

    @given(st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.none() | st.text(max_size=20))
    def test_as_others(self, header: dict[str, Any], kid: str | None) -> None:
        """What is read is what PyJWT reads, or nothing."""
        token = token_with(json.dumps({"alg": "HS256", **header, **({} if kid is None else {"kid": kid})}))
        try:
            found = kid_of(token)
        except UnreadableHeader:
            return
        assert found == json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "==")).get("kid")

    @given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
    def test_whatever_comes(self, first: bytes) -> None:
        """Whatever a client sends, it is read or refused."""
        for token in (token_with(first), f"{first.decode(errors='replace')}.e30.c2ln"):
            with suppress(UnreadableHeader):
                assert isinstance(kid_of(token), str | None)


class TestDeep:
    """Headers that are nested so deep that a parser may give up."""

    @pytest.mark.parametrize("depth", [100, 500, 800, 900, 950, 970, 985, 995, 1200, 3000])
    async def test_in_a_thread(self, depth: int) -> None:
        """A token of a leaked key is refused, though ``decode`` verifies it in a thread, where the stack is shallow."""
        called: list[str] = []

        def lenient(token: str) -> dict[str, Any]:
            called.append(token)
            return CLAIMS

        async def verify(token: str) -> dict[str, Any]:
            return await asyncio.to_thread(lenient, token)

        guard = Guard(refusing(), verify, max_token_bytes=100_000)
        with pytest.raises(Refused) as caught:
            await guard.admit_token(token_with(nested(depth)))
        assert (caught.value.code, called) == ("invalid_token", [])

    async def test_deep_stack(self) -> None:
        """The same from a stack that is nearly exhausted: never let in."""
        guard = Guard(refusing(), lambda token: CLAIMS)

        async def admit(left: int) -> None:
            if left:
                await admit(left - 1)
            else:
                await guard.admit_token(token_with(f'{{"kid":"{LEAKED}","x":[[[[[[[[[[[[]]]]]]]]]]]]}}'))

        for depth in range(0, 990, 10):
            with pytest.raises((Refused, RecursionError)):
                await admit(depth)


class TestTwoKeys:
    """A token for which `decode` or `claims_of` names another key than the header."""

    @pytest.mark.parametrize("leaked", ["outer", "https://issuer#outer", "inner", "read"])
    @pytest.mark.parametrize("where", ["decode", "claims_of", "header", "attribute"])
    async def test_all_are_asked_about(self, leaked: str, where: str) -> None:
        """A rule about the key in the header, or about the one that is named, covers the token; none hides another."""
        named = {"decode": "inner", "claims_of": "https://issuer#outer"}.get(where, "read")
        claims: dict[str, Any] = {**CLAIMS, "kid": named}

        class Decoded(dict[str, Any]):
            header = {"kid": "read"}  # noqa: RUF012 - as Authlib has it, on the instance

        def verify(token: str) -> Mapping[str, Any]:
            made: dict[str, Mapping[str, Any]] = {
                "decode": claims,
                "claims_of": CLAIMS,
                "header": {"header": {"kid": "read"}, "payload": CLAIMS},
                "attribute": Decoded(CLAIMS),
            }
            return made[where]

        options: dict[str, Any] = {}
        if where == "claims_of":
            options["claims_of"] = lambda value: claims
        if where == "header":
            options["claims_of"] = lambda value: value["payload"]
        revocations = refusing(leaked)
        guard = Guard(revocations, verify, **options)
        token = token_with('{"kid":"outer"}')
        if leaked in ("outer", named):
            with pytest.raises(Refused) as caught:
                await guard.admit_token(token)
            assert caught.value.code == "revoked_token"
            assert revocations.stats.revoked == 1
        else:
            assert (await guard.admit_token(token)).value == verify(token)
            assert (revocations.stats.allowed, revocations.stats.revoked) == (1, 0)

    async def test_named_kid_stays(self) -> None:
        """The claims keep the ``kid`` that was named."""
        guard = Guard(refusing(), lambda token: {**CLAIMS, "kid": "inner"})
        assert (await guard.admit_token(token_with('{"kid":"outer"}'))).claims["kid"] == "inner"
        assert (await guard.admit_token("opaque")).claims == {**CLAIMS, "kid": "inner"}

    @pytest.mark.parametrize("leaked", ["outer", "inner"])
    async def test_watched(self, leaked: str) -> None:
        """A watch of the admission ends when either key is compromised."""
        async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
            guard = Guard(revocations, lambda token: {**CLAIMS, "kid": "inner"})
            admission = await guard.admit_token(token_with('{"kid":"outer"}'))
            async with revocations.watch(admission.claims) as watch:
                revocations.apply(KeyRotated(key_id=leaked, compromised=True))
                assert watch.revoked.is_set()
            assert not revocations.check(admission.claims)

    async def test_named_kid_of_another_type(self) -> None:
        """A ``kid`` that is named and not text is refused, whatever the header has."""
        guard = Guard(refusing(), lambda token: {**CLAIMS, "kid": 7})
        for token in ("opaque", token_with('{"kid":"outer"}')):
            with pytest.raises(Refused) as caught:
                await guard.admit_token(token)
            assert caught.value.code == "invalid_token"


@pytest.mark.parametrize("lengths", [0, 1, 2])
async def test_padded_tokens(lengths: int) -> None:
    """Tokens with padded parts, as load balancers of AWS sign them, are let in; other equals signs are not."""
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode()
        for part in ({"alg": "HS256", "kid": "k" * lengths}, {"sub": "alice", "iat": 1})
    )
    guard = Guard(refusing(), lambda token: CLAIMS)
    assert (await guard.admit([f"Bearer {header}.{payload}.c2lnbg=="])).claims["kid"] == "k" * lengths
    for bad in (f"a=b.{payload}.c2ln", f"{header}..=.x y", f"={header}.{payload}.c"):
        with pytest.raises(Refused):
            await guard.admit([f"Bearer {bad}"])


def test_secret_is_not_quoted() -> None:
    """The reason of a refusal quotes nothing of the token."""
    with pytest.raises(UnreadableHeader) as caught:
        kid_of(token_with(f'{{"kid":"{SECRET}","kid":""}}'))
    assert SECRET not in str(caught.value)
