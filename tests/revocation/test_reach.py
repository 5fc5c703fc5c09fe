"""What a list reads in a token can be revoked: every set of claims that is let in can be logged out, and it alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jwt_events import InvalidClaims, SessionDestroyed, TokenRevoked
from jwt_events.envelope import Envelope, decode, encode
from jwt_events.events import name_of
from jwt_events.revocation._claims import is_reachable, subjects_of
from jwt_events.revocation._rules import Rules
from tests.support.examples import COMPACT_JWT

NOW = int(time.time())

ODD = [
    *(
        "",
        " ",
        "\t\n",
        "\u2003",
        "\x1c",
        "\x00",
        "a",
        "a" * 512,
        "a" * 513,
        "\u00e9" * 600,
        "half \ud83d",
        "\U0001f511",
    ),
    *("a.b.c", "worker-3.1764292800.17", "\u00e9.y.z", "10.0.0.1", "bob@mail.eu.example", "eyJ.b.c", COMPACT_JWT),
    *(f"Bearer {COMPACT_JWT}", "sha256:", name_of("a.b.c", is_token=True)),
]
_odd = st.sampled_from(ODD) | st.text(max_size=6)
_claims = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.none() | _odd for name in ("jti", "sub", "sid", "client_id", "azp", "kid")},
        "exp": st.none()
        | st.sampled_from([NOW + 60, NOW + 0.5, 0, -1, 10**10, 10**11, 253_402_300_799, 253_402_300_800, 10**400])
        | st.floats(),
        "typ": st.sampled_from(["Bearer", "JWT", "at+jwt", 7]),
    },
)


def rules() -> Rules:
    """Return rules without any rule in force."""
    return Rules(epoch=NOW, retention=None)


def log_out(known: Rules, claims: dict[str, Any]) -> TokenRevoked:
    """Revoke what these claims stand for, by an event that travels."""
    event = decode(encode(Envelope(TokenRevoked.from_claims(claims)), source="tests")).event
    assert isinstance(event, TokenRevoked)
    known.apply(event, now=NOW)
    return event


class TestEveryToken:
    """Whatever the claims of a token are."""

    @given(_claims)
    def test_can_be_logged_out(self, claims: dict[str, Any]) -> None:
        """Claims out of reach are those that `TokenRevoked.from_claims` refuses; all others can be revoked."""
        claims |= {"iat": NOW - 9}
        known = rules()
        assert not known.revokes(claims)
        if not is_reachable(claims):
            with pytest.raises(ValidationError, match="at least one of"):
                TokenRevoked.from_claims(claims)
            return
        if isinstance(claims.get("exp"), float) and claims["exp"] != claims["exp"] and claims.get("jti"):
            with pytest.raises(ValidationError, match="finite"):
                TokenRevoked.from_claims(claims)
            return
        log_out(known, claims)
        assert known.revokes(claims)

    @given(_claims, _odd)
    def test_alone(self, claims: dict[str, Any], other: str) -> None:
        """A token that has an id is logged out alone, however odd the id is."""
        known, id_ = rules(), claims.get("jti")
        if not id_ or claims.get("exp") is None or claims["exp"] != claims["exp"] or other == id_:
            return
        event = log_out(known, claims)
        assert event.token_id is not None
        if name_of(other, is_token=True) != event.token_id:
            assert not known.revokes({**claims, "jti": other, "iat": NOW - 9})

    @pytest.mark.parametrize("claim", ["jti", "sid", "sub", "client_id", "azp"])
    @pytest.mark.parametrize("value", ODD[1:], ids=range(1, len(ODD)))
    def test_by_one_identifier(self, claim: str, value: str) -> None:
        """Each identifier alone is enough, whatever it looks like."""
        known = rules()
        log_out(known, {claim: value})
        assert known.revokes({claim: value, "iat": NOW - 9})
        assert known.revokes({claim: value})
        assert not known.revokes({claim: f"{value} ", "iat": NOW - 9})
        assert not known.revokes({"kid": value, "iat": NOW - 9})

    @pytest.mark.parametrize("claims", [{}, {"iat": 1}, {"kid": "k"}, {"jti": "", "sub": ""}, {"sub": None, "azp": ""}])
    def test_out_of_reach(self, claims: dict[str, Any]) -> None:
        """Claims without an identifier cannot be revoked, and that can be asked before."""
        assert not is_reachable(claims)
        with pytest.raises(ValidationError):
            TokenRevoked.from_claims(claims)

    @pytest.mark.parametrize("claim", ["jti", "sid", "sub", "client_id", "azp"])
    @pytest.mark.parametrize("value", [7, True, b"a", ["a"], {"a": 1}])
    def test_another_type(self, claim: str, value: object) -> None:
        """A token with an identifier of another type is not let in."""
        with pytest.raises(InvalidClaims, match=f"^{claim}: must be text"):
            is_reachable({"jti": "t", claim: value})


class TestNames:
    """The name by which events name an identifier."""

    @pytest.mark.parametrize("text", ["a", "a" * 512, "\u00e9.y.z", "bob@mail.eu.example", "10.0.0.1", "\U0001f511"])
    def test_as_it_is(self, text: str) -> None:
        """Nearly every identifier names itself."""
        assert name_of(text) == name_of(text, is_token=True) == text

    def test_never_a_token(self) -> None:
        """A whole token never travels, in whichever claim an issuer has put it."""
        for claim in ("jti", "sub", "sid", "azp"):
            payload = encode(Envelope(TokenRevoked.from_claims({claim: COMPACT_JWT})), source="tests")
            assert COMPACT_JWT.encode() not in payload

    def test_by_hand(self) -> None:
        """The name is the SHA-256 in base64url, so that other programs can compute it."""
        assert name_of("x.y.z", is_token=True) == "sha256:9zBPEr5nNSYFC_eE_LCurJ1qn2UWtKy_maN1iRZEsSM"
        assert name_of("x.y.z") == "x.y.z"

    def test_in_every_event(self) -> None:
        """A session is known by the same name in `SessionDestroyed`."""
        known, session = rules(), "s" * 513
        known.apply(SessionDestroyed(session_id=name_of(session)), now=NOW)
        assert known.revokes({"sid": session, "iat": NOW - 9})
        assert not known.revokes({"sid": session + "s", "iat": NOW - 9})
        assert subjects_of({"sid": session}).digests == subjects_of({"sid": name_of(session)}).digests
