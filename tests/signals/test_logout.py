"""Logout tokens: what they become, and what is refused."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import jwt
import pytest

from jwt_events import InvalidOption, KeysUnavailable, SessionDestroyed, SigningKeys, TokenRevoked
from jwt_events.signals import LOGOUT, LogoutTokens, SignalRefused
from jwt_events.testing import Transmitter
from tests.signals.specifications import LOGOUT_TOKEN as EXAMPLE

ISSUER, CLIENT = "https://server.example.com", "s6BhdRkqt3"
PROVIDER = Transmitter(ISSUER, CLIENT)


def receiver(**options: Any) -> LogoutTokens:
    """Return a receiver of the provider's tokens."""
    return LogoutTokens(ISSUER, CLIENT, PROVIDER.keys(), **options)


class TestEvents:
    """What logout tokens become."""

    async def test_the_example_of_the_specification(self) -> None:
        """It destroys the session, at the time that it says."""
        event = await receiver(leeway=1e9).event(PROVIDER.sign(EXAMPLE, typ="logout+jwt"))
        assert isinstance(event, SessionDestroyed)
        assert (event.session_id, event.user_id) == ("08a5019c-17e1-4977-8f42-65a12843ea02", "248289761001")
        assert event.occurred_at.timestamp() == 1471566154
        assert event.metadata == {"issuer": ISSUER}

    async def test_a_user(self) -> None:
        """Without a session all tokens of the user are revoked that were issued up to then."""
        now = int(time.time())
        event = await receiver().event(PROVIDER.logout_token(sub="alice", iat=now))
        assert isinstance(event, TokenRevoked)
        assert (event.user_id, event.session_id, event.token_id) == ("alice", None, None)
        assert event.issued_before is not None
        assert event.issued_before.timestamp() == now

    async def test_again_is_the_same_event(self) -> None:
        """A token that is sent again, or to another instance, is an equal event; another token is another one."""
        token = PROVIDER.logout_token(sid="s1", jti="one")
        first, again = await receiver().event(token), await receiver().event(token)
        assert first == again
        assert uuid.UUID(first.id).version == 8
        other = await receiver().event(PROVIDER.logout_token(sid="s1", jti="two"))
        assert other.id != first.id

    async def test_no_token_on_the_bus(self) -> None:
        """Nothing of the token but what identifies the session is in the event."""
        token = PROVIDER.logout_token(sid="s1")
        encoded = (await receiver().event(token)).model_dump_json()
        assert all(part not in encoded for part in token.split("."))

    @pytest.mark.parametrize(
        ("typ", "optional", "required"),
        [
            ("logout+jwt", True, True),
            ("application/logout+jwt", True, True),
            ("Logout+JWT", True, True),
            ("JWT", True, False),
            (None, True, False),
            ("at+jwt", False, False),
            ("secevent+jwt", False, False),
        ],
    )
    async def test_types(self, typ: str | None, optional: bool, required: bool) -> None:
        """A token of another type is refused; one without a type, if the program says so."""
        claims = EXAMPLE | {"exp": int(time.time()) + 60}
        token = PROVIDER.sign(claims, typ=typ)
        for require_typ, accepted in ((False, optional), (True, required)):
            if accepted:
                assert (await receiver(require_typ=require_typ).event(token)).id
            else:
                with pytest.raises(SignalRefused, match=r"^invalid_request"):
                    await receiver(require_typ=require_typ).event(token)

    @pytest.mark.parametrize("offline", [True, False])
    async def test_offline_sessions(self, offline: bool) -> None:
        """Keycloak says beside the logout whether offline sessions end too; nothing else may stand there."""
        events: dict[str, Any] = {LOGOUT: {}, "revoke_offline_access": offline}
        event = await receiver().event(PROVIDER.logout_token(sid="s", events=events))
        assert isinstance(event, SessionDestroyed)
        for bad in (events | {"revoke_offline_access": {}}, events | {"more": True}, {"revoke_offline_access": True}):
            with pytest.raises(SignalRefused, match=r"^invalid_request: events has"):
                await receiver().event(PROVIDER.logout_token(sid="s", events=bad))

    async def test_several_receivers(self) -> None:
        """A list in aud needs to contain one of ours."""
        assert (await receiver().event(PROVIDER.logout_token(sid="s", aud=["other", CLIENT]))).id
        with pytest.raises(SignalRefused, match=r"^invalid_audience"):
            await receiver().event(PROVIDER.logout_token(sid="s", aud=["other"]))


class TestRefused:
    """What is refused, with which code."""

    @pytest.mark.parametrize("name", PROVIDER.bad_logout_tokens())
    async def test_bad_tokens(self, name: str) -> None:
        """Each of the transmitter's bad tokens is refused with its code, in words that quote nothing."""
        token, err = PROVIDER.bad_logout_tokens()[name]
        with pytest.raises(SignalRefused) as caught:
            await receiver().event(token)
        assert caught.value.err == err
        assert caught.value.description
        assert "evil" not in str(caught.value)
        assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)

    @pytest.mark.parametrize("value", [None, 7, b"a.b.c", ["a"]])
    async def test_other_values(self, value: Any) -> None:
        """What is no text is refused too."""
        with pytest.raises(SignalRefused):
            await receiver().event(value)

    @pytest.mark.parametrize("sid", ["", " ", 7, ["s"], "s" * 513, {"s": 1}, "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.x", True])
    async def test_identifiers(self, sid: Any) -> None:
        """A session id that no event may have is a refusal, not an error of pydantic."""
        with pytest.raises(SignalRefused, match=r"^invalid_request"):
            await receiver().event(PROVIDER.logout_token(sid=sid))

    async def test_the_only_form_of_base64(self) -> None:
        """The same bytes in another spelling are refused: a token has one spelling."""
        token = PROVIDER.logout_token(sid="s")
        assert token[-1] in "AQgw"  # 64 bytes leave four bits that say nothing
        other = chr(ord(token[-1]) + 1)
        with pytest.raises(SignalRefused, match="only form"):
            await receiver().event(token[:-1] + other)

    async def test_keys_that_are_down(self) -> None:
        """That the keys cannot be fetched is no refusal: the provider may try again."""

        async def fetch() -> dict[str, Any]:
            raise OSError

        tokens = LogoutTokens(ISSUER, CLIENT, SigningKeys(fetch))
        with pytest.raises(KeysUnavailable):
            await tokens.event(PROVIDER.logout_token(sid="s"))


class TestKeys:
    """Functions in place of `SigningKeys`, and shared secrets."""

    async def test_a_function(self) -> None:
        """An async function or a plain one returns the key, or None for an unknown one."""
        found = jwt.PyJWK(PROVIDER.jwks()["keys"][0])
        asked: list[str | None] = []

        async def later(kid: str | None) -> jwt.PyJWK | None:
            asked.append(kid)
            return found if kid == PROVIDER.kid else None

        for keys in (later, lambda kid: found):
            tokens = LogoutTokens(ISSUER, CLIENT, keys)
            assert (await tokens.event(PROVIDER.logout_token(sid="s"))).id
        assert asked == [PROVIDER.kid]
        token, _ = PROVIDER.bad_logout_tokens()["unknown kid"]
        with pytest.raises(SignalRefused, match=r"^invalid_key"):
            await LogoutTokens(ISSUER, CLIENT, later).event(token)

    async def test_a_shared_secret_if_it_was_chosen(self) -> None:
        """HS256 is accepted only from a program that names it."""
        secret = base64.urlsafe_b64encode(b"x" * 32).rstrip(b"=").decode()
        key = jwt.PyJWK({"kty": "oct", "k": secret, "alg": "HS256"})
        claims = EXAMPLE | {"exp": int(time.time()) + 60}
        token = jwt.encode(claims, b"x" * 32, "HS256", headers={"typ": "logout+jwt"})
        assert (await LogoutTokens(ISSUER, CLIENT, lambda kid: key, algorithms=["HS256"]).event(token)).id
        with pytest.raises(SignalRefused, match=r"^invalid_request"):
            await LogoutTokens(ISSUER, CLIENT, lambda kid: key).event(token)

    @pytest.mark.parametrize(
        "options",
        [{"algorithms": ["none"]}, {"algorithms": []}, {"leeway": -1}, {"audience": []}, {"issuer": ""}, {"keys": 7}],
        ids=str,
    )
    def test_options(self, options: dict[str, Any]) -> None:
        """Options that cannot work are refused when they are given."""
        given: dict[str, Any] = {"issuer": ISSUER, "audience": CLIENT, "keys": PROVIDER.keys()} | options
        with pytest.raises(InvalidOption):
            LogoutTokens(**given)

    def test_header_without_padding(self) -> None:
        """The transmitter's tokens are what a provider sends: the events member is in the payload."""
        payload = PROVIDER.logout_token(sid="s").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert claims["events"] == {LOGOUT: {}}
