"""Every example that the specifications print: the event that the table says, or the refusal."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from jwt_events import Event, SessionDestroyed, TokenRevoked
from jwt_events.signals import (
    CAEP,
    LOGOUT,
    RISC,
    LogoutTokens,
    SecurityEvents,
    SignalRefused,
    Subject,
    SubjectId,
)
from jwt_events.testing import Transmitter
from tests.signals.specifications import EXAMPLES, LOGOUT_TOKEN, PUSHED, SUBJECTS, UNSECURED, Example

IDP = Transmitter()
SESSIONS = ("dMTlD|1600802906337.16|16008.16",)


def everybody(subject: SubjectId) -> Subject | str | None:
    """Know every subject."""
    if subject.format == "complex":
        return "owner of the device"
    if subject.format == "saml_assertion_id" or subject.value in SESSIONS:
        return Subject(session_id=subject.value)
    value = subject.value or subject.members.get("catalog_id")
    return f"user of {value}" if value else None


def shown(event: Event) -> str:
    """Return what an event revokes, in a line."""
    assert isinstance(event, SessionDestroyed | TokenRevoked)
    named = {"token": getattr(event, "token_id", None), "session": event.session_id, "user": event.user_id}
    return " ".join([type(event).__name__, *(f"{name}={value}" for name, value in named.items() if value is not None)])


async def outcome(claims: dict[str, Any], **options: Any) -> str:
    """Return what a token with these claims is to a receiver that it is for."""
    receiver = SecurityEvents(claims["iss"], claims["aud"], IDP.keys(), **options)
    try:
        received = await receiver.receive(IDP.sign(claims, typ="secevent+jwt"))
    except SignalRefused as error:
        return str(error)
    if received.verification:
        return f"verification state={received.state}"
    if received.status is not None:
        return f"stream-updated status={received.status}"
    return ", ".join(map(shown, received.events))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_example(example: Example) -> None:
    """It is what the table says, to a receiver that knows every subject and to one without a resolver."""
    assert await outcome(example.claims, subject=everybody) == example.told
    assert await outcome(example.claims) == (example.told if example.alone is None else example.alone)


@pytest.mark.parametrize("name", SUBJECTS)
async def test_subject(name: str) -> None:
    """A subject that is printed by itself is who the resolver says, and unknown without one."""
    sub_id, known = SUBJECTS[name]
    claims = {"iss": IDP.issuer, "aud": IDP.audience, "iat": int(time.time()), "jti": "j", "sub_id": sub_id}
    claims |= {"events": {f"{CAEP}session-revoked": {}}}
    expected = f"TokenRevoked user={known}"
    if not known:
        expected = "invalid_request: the subject is unknown here"
    elif known.startswith("session "):
        expected = f"SessionDestroyed session={known.removeprefix('session ')}"
    assert await outcome(claims, subject=everybody) == expected
    assert (await outcome(claims)).startswith("invalid_request: ")


async def test_subject_of_the_same_issuer() -> None:
    """RFC 9493 §4: an issuer's own user needs no resolver; a ``sub`` beside the ``sub_id`` is not allowed in SSF."""
    claims: dict[str, Any] = {
        "iss": "issuer.example.com",
        "aud": "aud.example.com",
        "iat": 1508184845,
        "jti": "j",
        "sub_id": {"format": "iss_sub", "iss": "issuer.example.com", "sub": "example_user"},
        "events": {f"{RISC}account-disabled": {}},
    }
    assert await outcome(claims) == "TokenRevoked user=example_user"
    assert (await outcome(claims | {"sub": "user@example.com"})).startswith("invalid_request: sub is not allowed")


async def test_several_subjects_in_an_event() -> None:
    """RFC 9493 §2: an event whose members are subjects of other names is not understood, and does nothing."""
    parties = {"from": "alice", "to": "bob", "interceptor": "eve"}
    claims = {
        "iss": "issuer.example.com",
        "iat": 1508184845,
        "aud": "aud.example.com",
        "jti": "j",
        "events": {
            "https://secevent.example.com/events/message-interception": {
                role: {"format": "email", "email": f"{name}@example.com"} for role, name in parties.items()
            }
        },
    }
    assert await outcome(claims) == ""


async def test_a_comma_too_many() -> None:
    """RISC prints account-disabled with a comma before a closing brace, which is not JSON."""
    (claims,) = [example.claims for example in EXAMPLES if example.name == "RISC account-disabled"]
    printed = json.dumps(claims, indent=2).replace('"7375626A656374"', '"7375626A656374",')
    header = json.dumps({"typ": "secevent+jwt", "alg": "ES256", "kid": IDP.kid})
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, printed)]
    receiver = SecurityEvents(claims["iss"], claims["aud"], IDP.keys())
    with pytest.raises(SignalRefused, match=r"^invalid_request: the payload is not JSON"):
        await receiver.events(IDP.sign_raw(b".".join(parts)))


class TestWholeTokens:
    """Tokens that are printed with their signature, or without one."""

    async def test_unsecured(self) -> None:
        """RFC 8417 §2.4: never accepted."""
        audience = "https://scim.example.com/Feeds/98d52461fa5bbc879593b7754"
        receiver = SecurityEvents("https://scim.example.com", audience, IDP.keys())
        with pytest.raises(SignalRefused, match=r"^invalid_request: .*\(alg\)"):
            await receiver.events(UNSECURED)

    async def test_shared_secret(self) -> None:
        """RFC 8935 §2.1, SSF §4.1.1: HS256 is refused unless it was named; then the signature counts."""
        issuer, audience = "https://idp.example.com/", "636C69656E745F6964"
        with pytest.raises(SignalRefused, match=r"^invalid_request: .*\(alg\)"):
            await SecurityEvents(issuer, audience, IDP.keys()).events(PUSHED)
        secret = base64.urlsafe_b64encode(b"x" * 32).rstrip(b"=").decode()
        key = jwt.PyJWK({"kty": "oct", "k": secret, "alg": "HS256"})
        receiver = SecurityEvents(issuer, audience, lambda kid: key, algorithms=["HS256"])
        with pytest.raises(SignalRefused, match=r"^invalid_key: the signature is not valid"):
            await receiver.events(PUSHED)
        payload = PUSHED.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        (event,) = await receiver.events(jwt.encode(claims, b"x" * 32, "HS256", headers={"typ": "secevent+jwt"}))
        assert shown(event) == "TokenRevoked user=7375626A656374"


class TestLogoutTokens:
    """The logout token that Back-Channel Logout and RFC 8417 print."""

    async def test_back_channel_logout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It destroys the session while it has not expired, and is refused after that."""
        receiver = LogoutTokens("https://server.example.com", "s6BhdRkqt3", IDP.keys())
        token = IDP.sign(LOGOUT_TOKEN, typ="logout+jwt")
        with pytest.raises(SignalRefused, match=r"^invalid_request: the token has expired"):
            await receiver.event(token)
        monkeypatch.setattr("jwt_events.signals._verifier.current_time", lambda: 1471566154.0)
        event = await receiver.event(token)
        assert shown(event) == "SessionDestroyed session=08a5019c-17e1-4977-8f42-65a12843ea02 user=248289761001"
        assert LOGOUT_TOKEN["events"] == {LOGOUT: {}}

    async def test_older_form(self) -> None:
        """RFC 8417 §2.1.2 has no ``exp``, which the final text requires; nor is it a security event of SSF."""
        older = {name: value for name, value in LOGOUT_TOKEN.items() if name != "exp"}
        receiver = LogoutTokens("https://server.example.com", "s6BhdRkqt3", IDP.keys())
        with pytest.raises(SignalRefused, match=r"^invalid_request: exp is missing"):
            await receiver.event(IDP.sign(older, typ="logout+jwt"))
        assert (await outcome(older)).startswith("invalid_request: sub is not allowed")
