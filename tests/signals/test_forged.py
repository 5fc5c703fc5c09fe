"""Forged and odd tokens: none is accepted, none crashes the receiver, none costs more than a bounded amount of work."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jwt_events import KeysUnavailable, UnknownKey
from jwt_events.signals import CAEP, LogoutTokens, SecurityEvents, SignalRefused
from jwt_events.testing import Transmitter

IDP = Transmitter()
KEYS = IDP.keys()
EVENTS = SecurityEvents(IDP.issuer, IDP.audience, KEYS)
LOGOUTS = LogoutTokens(IDP.issuer, IDP.audience, KEYS)
GOOD = IDP.security_event(f"{CAEP}session-revoked", IDP.subject("alice"))
GOOD_LOGOUT = IDP.logout_token(sub="alice", sid="s1", exp=int(time.time()) + 100_000)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CLAIMS = ("iss", "aud", "iat", "jti", "events", "sub_id", "exp", "nbf", "toe", "txn", "sub", "sid", "nonce")
HEADERS = ("alg", "kid", "typ", "jwk", "crit", "b64", "x5c")


async def refused(token: Any) -> None:
    """Check that both receivers refuse a token, with a code of RFC 8935, or put it off for its ``kid``."""
    for read in (EVENTS.events, LOGOUTS.event):
        with pytest.raises((SignalRefused, KeysUnavailable)) as caught:
            await read(token)
        if isinstance(caught.value, KeysUnavailable):
            assert isinstance(caught.value.__cause__, UnknownKey)
        else:
            assert isinstance(caught.value, SignalRefused)
            assert caught.value.err in {"invalid_request", "invalid_key", "invalid_issuer", "invalid_audience"}


def encoded(value: object) -> str:
    """Encode a part of a token."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()


def decoded(part: str) -> dict[str, Any]:
    """Decode a part of a token."""
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Change a good token: characters, parts, claims or members of the header; the signature stays or goes."""
    header, payload, signature = draw(st.sampled_from([GOOD, GOOD_LOGOUT])).split(".")
    how = draw(st.sampled_from(["characters", "claims", "header", "parts", "text"]))
    if how == "characters":
        token = f"{header}.{payload}.{signature}"
        at = draw(st.integers(0, len(token)))
        return token[:at] + draw(st.text(max_size=3)) + token[at + draw(st.integers(0, 3)) :]
    if how == "claims":
        payload = encoded(decoded(payload) | draw(st.dictionaries(st.sampled_from(CLAIMS), JSON, min_size=1)))
    elif how == "header":
        header = encoded(decoded(header) | draw(st.dictionaries(st.sampled_from(HEADERS), JSON, min_size=1)))
    elif how == "parts":
        parts = draw(st.lists(st.sampled_from([header, payload, signature, "", "e30"]), max_size=5))
        return ".".join(parts)
    else:
        payload = encoded(draw(st.text(alphabet='{}[]":,0123456789eE-+.truefalsnd \\u"', max_size=60)))
    return f"{header}.{payload}.{signature}"


@given(token=mutated())
@settings(max_examples=300, deadline=None)
async def test_mutated(token: str) -> None:
    """No changed token is accepted."""
    if token not in (GOOD, GOOD_LOGOUT):
        await refused(token)


@given(claims=st.dictionaries(st.sampled_from(CLAIMS), JSON, min_size=1))
@settings(max_examples=150, deadline=None)
async def test_odd_claims(claims: dict[str, Any]) -> None:
    """What an issuer signs that has gone mad is refused, or becomes an event; nothing else is raised."""
    usual = decoded(GOOD.split(".")[1])
    for read, typ in ((EVENTS.events, "secevent+jwt"), (LOGOUTS.event, "logout+jwt")):
        header, payload = encoded({"alg": "ES256", "kid": IDP.kid, "typ": typ}), encoded(usual | claims)
        token = IDP.sign_raw(f"{header}.{payload}".encode())
        try:
            await read(token)
        except SignalRefused as error:
            assert error.description  # noqa: PT017 - either may happen


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 5_000,
        '{"a":' * 3_000,
        '{"iat":' + "9" * 12_000 + "}",
        '{"iat":1e999999999}',
        '{"iat":NaN}',
        '{"iat":-Infinity}',
        '{"iss":"\\ud800"}',
        '{"\\ud800":1}',
        '{"iss":"a","iss":"a"}',
        '{"events":{"a":{},"a":{}}}',
        '"text"',
        "null",
        "{}{}",
        "\ufeff{}",
    ],
    ids=lambda payload: payload[:12],
)
async def test_payloads(payload: str) -> None:
    """What parsers disagree about, or spend long on, is refused, in the payload and in the header."""
    header, _, signature = GOOD.split(".")
    await refused(f"{header}.{encoded(payload)}.{signature}")
    await refused(f"{encoded(payload)}.{encoded('{}')}.{signature}")
    await refused(IDP.sign_raw(f"{header}.{encoded(payload)}".encode()))


async def test_memory() -> None:
    """A token of any size is refused before it is parsed: no memory is taken."""
    huge = "a" * 50_000_000
    tokens = [huge, f"{huge}.{huge[:9]}.{huge[:9]}", "." * 1_000_000]
    tracemalloc.start()
    try:
        for token in tokens:
            await refused(token)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
