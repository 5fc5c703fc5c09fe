"""Keys of a transmitter that changes them: what cannot be verified yet is put off, and not refused for good."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jwt_events import KeysUnavailable, MemoryTransport, SigningKeys, TokenRevoked, UnknownKey
from jwt_events.keys import _fetcher as fetcher
from jwt_events.signals import CAEP, LogoutEndpoint, LogoutTokens, SecurityEvents, SetEndpoint
from jwt_events.testing import RecordingPublisher, Transmitter
from tests.support.issuers import Clock
from tests.support.logs import everything_logged

REVOKED = f"{CAEP}session-revoked"


class Rotating:
    """An issuer that changes its key; what it lists may lag behind."""

    def __init__(self) -> None:
        self.old, self.new = Transmitter(), Transmitter()
        self.listed = [self.old]

    async def fetch(self) -> dict[str, Any]:
        """Return the JWK Set that is listed."""
        return {"keys": [key for transmitter in self.listed for key in transmitter.jwks()["keys"]]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the keys read."""
    clock = Clock()
    monkeypatch.setattr(fetcher, "time", clock)
    monkeypatch.setattr(fetcher, "boottime", clock.monotonic)
    return clock


@pytest.fixture
def issuer() -> Rotating:
    """An issuer."""
    return Rotating()


@pytest.fixture
def publisher() -> RecordingPublisher:
    """A publisher that records."""
    return RecordingPublisher(MemoryTransport())


async def send(endpoint: SetEndpoint | LogoutEndpoint, body: str) -> tuple[int, str, str | None]:
    """Send a body; return the status, the code of an error, and after how many seconds to send it again."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body.encode()

    response = await endpoint.respond("POST", [("Content-Type", endpoint.content_type)], chunks())
    said = json.loads(response.body) if response.body else {}
    return response.status, said.get("err", said.get("error", "")), response.headers.get("Retry-After")


def forged(issuer: Rotating, kid: str) -> str:
    """Return a token of a stranger, with a kid of its own."""
    return Transmitter(issuer.old.issuer).sign(
        {"iss": issuer.old.issuer, "aud": issuer.old.audience, "iat": 1, "jti": kid, "events": {REVOKED: {}}},
        typ="secevent+jwt",
        headers={"kid": kid},
    )


async def test_a_key_that_is_new_within_the_cooldown(
    issuer: Rotating, clock: Clock, publisher: RecordingPublisher
) -> None:
    """A stranger's kid used up the fetch of this cooldown: the signal is put off, and accepted when it comes again."""
    endpoint = SetEndpoint(publisher, SecurityEvents(issuer.old.issuer, issuer.old.audience, SigningKeys(issuer.fetch)))
    assert await send(endpoint, issuer.old.security_event(REVOKED, issuer.old.subject("alice"))) == (202, "", None)
    assert await send(endpoint, forged(issuer, "invented")) == (400, "invalid_key", None)
    issuer.listed = [issuer.new]
    token = issuer.new.security_event(REVOKED, issuer.new.subject("bob"))
    with everything_logged() as lines:
        status, err, seconds = await send(endpoint, token)
    assert (status, err) == (503, "temporarily_unavailable")
    assert 0 < int(seconds or 0) <= 10
    assert not any("WARNING" in line or "ERROR" in line for line in lines)
    clock.advance(int(seconds or 0))
    assert await send(endpoint, token) == (202, "", None)
    publisher.assert_published(TokenRevoked, user_id="bob")


async def test_a_key_that_was_not_listed_in_time(issuer: Rotating, clock: Clock, publisher: RecordingPublisher) -> None:
    """A kid that a fetch did not bring is refused, and put off while no other fetch may start for it."""
    keys = SigningKeys(issuer.fetch, cooldown=10, negative_ttl=30)
    endpoint = SetEndpoint(publisher, SecurityEvents(issuer.old.issuer, issuer.old.audience, keys))
    first, second = (issuer.new.security_event(REVOKED, issuer.new.subject(name)) for name in ("alice", "bob"))
    assert await send(endpoint, first) == (400, "invalid_key", None)
    issuer.listed = [issuer.old, issuer.new]
    clock.advance(15)
    assert await send(endpoint, second) == (503, "temporarily_unavailable", "15")
    clock.advance(15)
    assert await send(endpoint, second) == (202, "", None)


async def test_logout_tokens(issuer: Rotating, clock: Clock, publisher: RecordingPublisher) -> None:
    """OpenID prescribes 400 for every failure: the code and the header say that it may be sent again."""
    tokens = LogoutTokens(issuer.old.issuer, issuer.old.audience, SigningKeys(issuer.fetch))
    endpoint = LogoutEndpoint(publisher, tokens)
    assert await send(endpoint, f"logout_token={issuer.old.logout_token(sid='s1')}") == (200, "", None)
    with pytest.raises(Exception, match="not listed"):
        await tokens.event(forged_logout(issuer))
    issuer.listed = [issuer.new]
    body = f"logout_token={issuer.new.logout_token(sid='s2')}"
    status, err, seconds = await send(endpoint, body)
    assert (status, err) == (400, "temporarily_unavailable")
    clock.advance(int(seconds or 0))
    assert await send(endpoint, body) == (200, "", None)


def forged_logout(issuer: Rotating) -> str:
    """Return a stranger's logout token."""
    token, _ = issuer.old.bad_logout_tokens()["unknown kid"]
    return token


async def test_what_the_keys_say(issuer: Rotating, clock: Clock) -> None:
    """`UnknownKey` says whether the issuer may list the key by now; receivers raise `KeysUnavailable` if so."""
    keys = SigningKeys(issuer.fetch)
    for kid, may_be_listed in (("one", False), ("two", True), ("one", True)):
        with pytest.raises(UnknownKey) as caught:
            await keys.get(kid)
        assert caught.value.may_be_listed is may_be_listed
        assert (caught.value.retry_after or 0) > 0
    with pytest.raises(UnknownKey) as caught:
        await keys.get("x" * 10_000)
    assert not caught.value.may_be_listed
    receiver = SecurityEvents(issuer.old.issuer, issuer.old.audience, keys)
    with pytest.raises(KeysUnavailable, match="may not be fetched again yet") as put_off:
        await receiver.events(forged(issuer, "three"))
    assert put_off.value.retry_after
    assert "three" not in str(put_off.value)
