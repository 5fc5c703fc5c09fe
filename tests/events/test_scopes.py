"""How wide a revocation is: exemptions, conditions, everyone; what is refused, and what travels."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from jwt_events import DecodeError, EventType, InvalidEvent, TokenRevoked
from jwt_events.envelope import Envelope, decode, encode
from jwt_events.events import fingerprint, make_event
from tests.support.examples import COMPACT_JWT, NOON, received

SCOPES: list[dict[str, Any]] = [
    {"user_id": "u", "except_session_id": "s"},
    {"user_id": "u", "client_id": "c", "except_session_id": "s", "claims": {"iss": "i"}},
    {"claims": {"org": "acme", "act.sub": 5, "a.b.c": True, "https://a.shop.example.com/x": 1.5, "empty": ""}},
    {"token_id": "t", "claims": {"iss": "i"}},
    {"everyone": True},
]

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"except_session_id": "s"}, "except_session_id", "name the user"),
    ({"client_id": "c", "except_session_id": "s"}, "except_session_id", "name the user"),
    ({"token_id": "t", "user_id": "u", "except_session_id": "s"}, "except_session_id", "token_id"),
    ({"session_id": "t", "user_id": "u", "except_session_id": "s"}, "except_session_id", "session_id"),
    ({"everyone": True, "user_id": "u"}, "everyone", "user_id"),
    ({"everyone": True, "claims": {"a": 1}}, "everyone", "claims"),
    ({"everyone": True, "except_session_id": "s"}, "except_session_id", "name the user"),
    ({"everyone": False}, "payload", "at least one"),
    ({"claims": {}}, "claims", "is empty"),
    ({"user_id": "u", "claims": {}}, "claims", "is empty"),
    ({"claims": {f"c{number}": 1 for number in range(9)}}, "claims", "more than 8"),
    ({"claims": {"a.b.c.d": 1}}, "claims", "nests deeper than 3"),
    ({"claims": {"a..c": 1}}, "claims", "empty part"),
    ({"claims": {"": 1}}, "claims", "empty part"),
    ({"claims": {" ": 1}}, "claims", "empty part"),
    ({"claims": {"a" * 513: 1}}, "claims", "512"),
    ({"claims": {"a": None}}, "claims", "null"),
    ({"claims": {"a": ["b"]}}, "claims", "list"),
    ({"claims": {"act": {"sub": "x"}}}, "claims", "act.sub"),
    ({"claims": {"a": float("nan")}}, "claims", "NaN"),
    ({"claims": {"a": 2**63}}, "claims", "64 bits"),
    ({"claims": {"a": "x" * 513}}, "claims", "512"),
    ({"claims": {"a": "half \ud83d"}}, "claims", "surrogate"),
    ({"claims": {"a": COMPACT_JWT}}, "claims", "JWT"),
    ({"claims": {"a": b"bytes"}}, "claims", "valid"),
    ({"claims": "org=acme"}, "claims", "dictionary"),
]


@pytest.mark.parametrize("fields", SCOPES, ids=str)
def test_travels(fields: dict[str, Any]) -> None:
    """It is read as it was published, field by field."""
    event = TokenRevoked(**fields, occurred_at=NOON, source="auth")
    assert decode(encode(Envelope(event), source="auth")).event == event


@pytest.mark.parametrize(("fields", "field", "problem"), REFUSED, ids=str)
def test_refused(fields: dict[str, Any], field: str, problem: str) -> None:
    """What contradicts itself, or can cover no token, is refused with the field and the advice."""
    with pytest.raises(ValidationError):
        TokenRevoked(**fields)
    with pytest.raises(InvalidEvent, match=re.escape(problem)) as error:
        make_event(EventType.TOKEN_REVOKED, fields)
    assert error.value.problems[0][0].split(".")[0] == field


@pytest.mark.parametrize(
    "data",
    [{"claims": {}}, {"claims": {"a.b.c.d": 1}}, {"user_id": "u", "claims": {"a": None}}, {"claims": {"a": [1]}}, {}],
    ids=str,
)
def test_conditions_from_elsewhere(data: dict[str, Any]) -> None:
    """Conditions that are not understood are not guessed: the message is not an event."""
    with pytest.raises(DecodeError, match=r"TokenRevoked|claims"):
        received(EventType.TOKEN_REVOKED, NOON, **data)


def test_an_older_reader() -> None:
    """It passes over members that it does not know: it revokes more, never less, or says that it read no event."""
    members = [json.loads(encode(Envelope(TokenRevoked(**fields)), source="auth"))["data"] for fields in SCOPES]
    known = {"token_id", "user_id", "session_id", "client_id", "issued_before", "expires_at", "reason", "metadata"}
    read = [{name: value for name, value in data.items() if name in known} for data in members]
    assert read == [{"user_id": "u"}, {"user_id": "u", "client_id": "c"}, {}, {"token_id": "t"}, {}]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"user_id": "u", "except_session_id": "s"},
            "Revokes all tokens of the user #u in all sessions, on all devices, except in the session #s, issued",
        ),
        (
            {"user_id": "u", "client_id": "c", "except_session_id": "s"},
            "Revokes all tokens of the user #u at the client #c, except in the session #s, issued up to ",
        ),
        (
            {"claims": {"org": "a", "act.sub": "b"}},
            "Revokes all tokens of all users, where org is #a and act.sub is #b,",
        ),
        ({"token_id": "t", "claims": {"iss": "i"}}, "Revokes the token #t, where iss is #i."),
        ({"session_id": "s", "claims": {"iss": "i"}}, "Revokes all tokens of the session #s, where iss is #i, issued"),
        ({"everyone": True}, "Revokes all tokens of all users, issued up to "),
    ],
    ids=str,
)
def test_sentence(fields: dict[str, Any], sentence: str) -> None:
    """The sentence says what is spared and what must be so, by fingerprints."""
    expected = re.sub(r"#(\w)", lambda name: f"#{fingerprint(name[1])}", sentence)
    assert TokenRevoked(**fields).covers.startswith(expected)


def test_repr() -> None:
    """The representation shows no value of a condition."""
    assert "acme" not in repr(TokenRevoked(user_id="u", claims={"org": "acme"}, except_session_id="acme"))
