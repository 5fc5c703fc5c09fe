"""What claims stand for: an access token, or the session or user that a token of another purpose is about."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from pydantic import ValidationError

from jwt_events import Event, EventType, InvalidClaims, KeyRotated, SessionDestroyed, TokenRevoked
from jwt_events.events import fingerprint
from jwt_events.revocation._rules import Rules
from tests.support.examples import NOON, received

NOW = int(time.time())
EVERYWHERE = "in all sessions, on all devices"
LOGOUT_EVENT: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
IDS = {"jti": "its-own", "sid": "s", "sub": "u", "client_id": "c", "iat": NOW - 60, "exp": NOW + 3_600}
ACCESS = {"jti": "access", "sid": "s", "sub": "u", "client_id": "other", "iat": NOW - 60, "exp": NOW + 600}

LOGOUTS: list[dict[str, Any]] = [{"events": LOGOUT_EVENT}, {"typ": "Logout"}, {"typ": "logout+jwt", "events": {}}]
REFRESHES: list[dict[str, Any]] = [
    *({"typ": typ} for typ in ("Refresh", "Offline", "refresh+jwt", "rt+jwt")),
    *({name: "refresh"} for name in ("token_use", "token_type", "type")),
    {"token_use": "REFRESH_TOKEN", "typ": "JWT"},
]
ID_TOKENS: list[dict[str, Any]] = [{"typ": "ID"}, {"token_use": "id"}]


def revokes(event: Event, claims: dict[str, Any]) -> bool:
    """Return whether an event alone revokes the token with these claims."""
    rules = Rules(epoch=NOW, retention=None)
    rules.apply(event, now=NOW)
    return rules.revokes(claims)


def without(*names: str) -> dict[str, Any]:
    """Return the claims without some."""
    return {name: value for name, value in IDS.items() if name not in names}


class TestLogoutTokens:
    """OpenID Connect Back-Channel Logout."""

    @pytest.mark.parametrize("marks", LOGOUTS, ids=str)
    def test_the_session(self, marks: dict[str, Any]) -> None:
        """They revoke the access tokens of their session, and of no other one."""
        event = TokenRevoked.from_claims(IDS | marks)
        assert (event.token_id, event.session_id, event.expires_at) == (None, "s", None)
        assert revokes(event, ACCESS)
        assert not revokes(event, ACCESS | {"sid": "another"})

    @pytest.mark.parametrize("marks", LOGOUTS, ids=str)
    @pytest.mark.parametrize("sid", [{}, {"sid": None}, {"sid": ""}], ids=str)
    def test_the_user(self, marks: dict[str, Any], sid: dict[str, Any]) -> None:
        """Without a session they revoke the user's access tokens, at every client."""
        event = TokenRevoked.from_claims(without("sid") | sid | marks)
        assert event.subject == "u"
        assert revokes(event, ACCESS)
        assert not revokes(event, ACCESS | {"sub": "another"})

    @pytest.mark.parametrize("marks", LOGOUTS, ids=str)
    def test_nobody(self, marks: dict[str, Any]) -> None:
        """Without either they are refused."""
        with pytest.raises(InvalidClaims, match="no session and no user") as refused:
            TokenRevoked.from_claims(without("sid", "sub") | marks)
        assert refused.value.claim == "sid"

    def test_another_security_event(self) -> None:
        """The claims of another security event token are refused: its ``jti`` names no token."""
        with pytest.raises(InvalidClaims, match="security event token") as refused:
            TokenRevoked.from_claims(IDS | {"events": {"https://schemas.openid.net/secevent/caep/x": {"a": 1}}})
        assert refused.value.claim == "events"

    @pytest.mark.parametrize("events", [None, [], {}, ["a"], "a", {"login": 1}, {"https://a": 1, "b": 2}, 7])
    def test_a_claim_of_that_name(self, events: Any) -> None:
        """An access token may have a claim ``events`` of its own."""
        assert TokenRevoked.from_claims(IDS | {"events": events}).token_id == "its-own"


class TestOtherTokens:
    """Refresh tokens and ID tokens, whose ``jti`` is not that of the access tokens beside them."""

    @pytest.mark.parametrize("marks", REFRESHES + ID_TOKENS, ids=str)
    def test_the_session(self, marks: dict[str, Any]) -> None:
        """They revoke their session: the access tokens, and themselves."""
        event = TokenRevoked.from_claims(IDS | marks, reason="logout")
        assert (event.token_id, event.session_id, event.reason) == (None, "s", "logout")
        assert revokes(event, ACCESS)
        assert revokes(event, IDS | marks)

    @pytest.mark.parametrize("marks", REFRESHES, ids=str)
    @pytest.mark.parametrize("sid", [{}, {"sid": None}, {"sid": ""}], ids=str)
    def test_a_refresh_token_without_session(self, marks: dict[str, Any], sid: dict[str, Any]) -> None:
        """It is refused, with what to publish instead."""
        with pytest.raises(InvalidClaims, match=r"TokenRevoked\(user_id=…\).*TokenRevoked\(token_id=…\)") as refused:
            TokenRevoked.from_claims(without("sid") | sid | marks)
        assert refused.value.claim == "sid"
        assert "its-own" not in str(refused.value)

    @pytest.mark.parametrize("marks", ID_TOKENS, ids=str)
    def test_an_id_token_without_session(self, marks: dict[str, Any]) -> None:
        """It is revoked by itself: some services take ID tokens as bearer tokens."""
        assert TokenRevoked.from_claims(without("sid") | marks).token_id == "its-own"

    @pytest.mark.parametrize(
        "marks",
        [
            *(
                {"typ": "Bearer"},
                {"typ": "at+jwt"},
                {"token_use": "access"},
                {"token_type": "Bearer"},
                {"type": "access"},
            ),
            *({"typ": None}, {"typ": 7}, {"typ": ["Refresh"]}, {"type": ""}, {"scope": "refresh"}),
        ],
        ids=str,
    )
    def test_an_access_token(self, marks: dict[str, Any]) -> None:
        """It is revoked alone."""
        event = TokenRevoked.from_claims(IDS | marks)
        assert event.token_id == "its-own"
        assert not revokes(event, ACCESS)

    def test_a_session_of_another_type(self) -> None:
        """A ``sid`` that is no text is refused by the name of the field."""
        with pytest.raises(ValidationError, match="session_id"):
            TokenRevoked.from_claims(IDS | {"typ": "Refresh", "sid": 7})


class TestCovers:
    """The sentence that says what an event revokes."""

    @pytest.mark.parametrize(
        ("event", "sentence"),
        [
            (TokenRevoked(token_id="t", session_id="s", user_id="u"), "Revokes the token #t alone."),
            (
                TokenRevoked(session_id="s", user_id="u", occurred_at=NOON),
                "Revokes all tokens of the session #s, issued up to 2026-03-01T12:00:00.000Z.",
            ),
            (
                TokenRevoked(user_id="u", issued_before=NOON),
                f"Revokes all tokens of the user #u {EVERYWHERE}, issued up to 2026-03-01T12:00:00.000Z.",
            ),
            (
                TokenRevoked(user_id="u", client_id="c", occurred_at=NOON),
                "Revokes all tokens of the user #u at the client #c, issued up to 2026-03-01T12:00:00.000Z.",
            ),
            (
                TokenRevoked(client_id="c", occurred_at=NOON),
                "Revokes all tokens of the client #c, of all users, issued up to 2026-03-01T12:00:00.000Z.",
            ),
            (
                SessionDestroyed(session_id="s", user_id="u", occurred_at=NOON),
                "Revokes all tokens of the session #s, issued up to 2026-03-01T12:00:00.000Z.",
            ),
            (KeyRotated(key_id="k", compromised=True), "Revokes all tokens that are signed with the key #k."),
            (KeyRotated(key_id="k", previous_key_id="j"), "Revokes nothing."),
            (
                received(EventType.KEY_ROTATED, key_id="k", previous_key_id="j", compromised=True),
                "Revokes all tokens that are signed with the key #k or the key #j.",
            ),
        ],
    )
    def test_sentence(self, event: TokenRevoked | SessionDestroyed | KeyRotated, sentence: str) -> None:
        """It names what decides, by fingerprint, and until when tokens were issued that it covers."""
        assert event.covers == re.sub(r"#(\w)", lambda name: f"#{fingerprint(name[1])}", sentence)

    def test_what_is_wider_than_a_token(self) -> None:
        """Claims without ``jti`` and ``sid`` are those of all the user's devices, and that can be read off."""
        assert "on all devices" in TokenRevoked.from_claims({"sub": "u"}).covers
        assert "the session" in TokenRevoked.from_claims({"sub": "u", "sid": "s"}).covers
