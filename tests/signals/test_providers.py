"""The services of the page about providers, each run as printed, with tokens as that provider makes them."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from jwt_events import RevocationList, Verdict
from jwt_events.embedded import EmbeddedServer
from jwt_events.signals import LOGOUT, RISC
from tests.support.documents import DOCS, blocks
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.waiting import wait_until

SERVICES = {block.section: block.text for block in blocks(DOCS / "providers.md", language="python")}
KEY_SETS = {
    "Keycloak": ("https://keycloak.example", "/realms/shop/protocol/openid-connect/certs"),
    "Okta": ("https://acme.okta.example", "/oauth2/v1/keys"),
    "Auth0": ("https://acme.auth0.example", "/.well-known/jwks.json"),
    "Google": ("https://www.googleapis.com", "/oauth2/v3/certs"),
}
USER, SESSION = "09e90463-05d0-4f1c-92e2-ca20ddd7e495", "7a07e583-807e-48ca-8b8c-ba223fd6d30c"


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    """Return a key with a name, the same one every time."""
    return rsa.generate_private_key(65_537, 2_048)


@dataclass
class Provider:
    """A provider: its address, and the service of the page that listens to it.

    Attributes:
        url: its address.
        names: the names that the service defines.
        client: a client of the service.
    """

    url: str
    names: dict[str, Any] = field(default_factory=dict)
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)

    def sign(self, claims: dict[str, Any], typ: str, key: str = "provider", kid: str = "provider") -> str:
        """Sign claims as providers do: with RS256; ``iat``, ``exp`` and ``jti`` are added unless they are there."""
        now = int(time.time())
        usual = {"iat": now, "exp": now + 120, "jti": uuid.uuid4().hex}
        claims = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(claims, private_key(key), "RS256", headers={"typ": typ, "kid": kid})

    async def log_out(self, claims: dict[str, Any], typ: str = "logout+jwt") -> int:
        """Send a logout token; return the status."""
        body = {"logout_token": self.sign(claims, typ)}
        return (await self.client.post("/backchannel-logout", data=body)).status_code

    async def becomes(self, verdict: Verdict, claims: dict[str, Any]) -> None:
        """Wait until the list of the service says this about the claims of an access token."""
        revocations: RevocationList = self.names["revocations"]
        await wait_until(lambda: revocations.check(claims) is verdict)

    def check(self, claims: dict[str, Any]) -> Verdict:
        """Return what the list of the service says about the claims of an access token."""
        revocations: RevocationList = self.names["revocations"]
        return revocations.check(claims)


@asynccontextmanager
async def running(section: str) -> AsyncIterator[Provider]:
    """Run a provider that lists its keys, and the service of a section of the page."""
    jwk = {**RSAAlgorithm.to_jwk(private_key("provider").public_key(), as_dict=True), "kid": "provider", "use": "sig"}
    host, path = KEY_SETS[section]

    async def key_set(request: web.Request) -> web.Response:
        return web.json_response({"keys": [jwk | {"alg": "RS256"}]})

    app = web.Application()
    app.router.add_get(path, key_set)
    async with EmbeddedServer() as server, aiohttp_server(app) as address:
        provider = Provider(f"http://{address}")
        code = SERVICES[section]
        for written, meant in {"redis://localhost:6379": server.url, host: provider.url}.items():
            assert written in code
            code = code.replace(written, meant)
        exec(code, provider.names)
        async with (
            uvicorn_server(provider.names["app"]) as service,
            httpx.AsyncClient(base_url=f"http://{service}") as provider.client,
        ):
            yield provider


def aged(**claims: Any) -> dict[str, Any]:
    """Return claims of an access token that was issued a minute ago."""
    now = int(time.time())
    return {"iat": now - 60, "exp": now + 240, "jti": uuid.uuid4().hex} | claims


async def test_keycloak() -> None:
    """A session of a user ends, with offline sessions or without; or all of them, without a session."""
    async with running("Keycloak") as keycloak:
        realm = f"{keycloak.url}/realms/shop"
        access = aged(
            iss=realm, aud="account", sub=USER, typ="Bearer", azp="orders", sid=SESSION, acr="1", scope="openid email"
        )
        other = access | {"sid": str(uuid.uuid4())}
        logout = {"iss": realm, "aud": "orders", "sub": USER, "typ": "Logout", "sid": SESSION, "events": {LOGOUT: {}}}
        assert keycloak.check(access) is Verdict.ALLOW
        offline = logout | {"events": {LOGOUT: {}, "revoke_offline_access": True}}
        assert await keycloak.log_out(offline) == 200
        await keycloak.becomes(Verdict.REVOKED, access)
        assert keycloak.check(other) is Verdict.ALLOW
        assert await keycloak.log_out(logout | {"sid": None}, "JWT") == 200  # an older version
        await keycloak.becomes(Verdict.REVOKED, other)
        assert await keycloak.log_out(logout | {"exp": None}) == 400  # a still older one
        assert await keycloak.log_out(logout | {"aud": "another-client"}) == 400


async def test_okta() -> None:
    """All tokens of the user with this id end; who does not sign, or for another address, may not ask for it."""
    async with running("Okta") as okta:
        endpoint = okta.names["ENDPOINT"]
        access = aged(
            ver=1, iss=f"{okta.url}/oauth2/default", aud="api://default", cid="0oa1", uid="00u1a2b3c4", scp=["openid"]
        ) | {"sub": "alice@example.com"}
        other = access | {"uid": "00u9", "sub": "bob@example.com"}
        body = {"sub_id": {"format": "iss_sub", "iss": okta.url, "sub": "00u1a2b3c4"}}
        asserted = {"iss": okta.url, "sub": "0oa1", "aud": endpoint, "nbf": int(time.time()) - 300}
        typ = "global-token-revocation+jwt"

        async def ask(assertion: str) -> int:
            headers = {"Authorization": f"Bearer {assertion}"}
            return (await okta.client.post("/global-token-revocation", json=body, headers=headers)).status_code

        assert await ask("not a token") == 401
        assert await ask(okta.sign(asserted, "at+jwt")) == 401
        assert await ask(okta.sign(asserted | {"aud": "https://other.example"}, typ)) == 401
        assert await ask(okta.sign(asserted | {"exp": 1}, typ)) == 401
        assert await ask(okta.sign(asserted, typ, key="stranger")) == 401
        assert await ask(okta.sign(asserted, typ, kid="unknown")) == 401
        assert await ask(okta.sign(asserted, typ, kid="unknown too")) == 503  # it may be a new key: ask again
        assert okta.check(access) is Verdict.ALLOW
        assert await ask(okta.sign(asserted, typ)) == 204
        await okta.becomes(Verdict.REVOKED, access)
        assert okta.check(other) is Verdict.ALLOW


async def test_auth0() -> None:
    """The session ends, in tokens to which an Action added it, and no token that has none."""
    async with running("Auth0") as auth0:
        issuer = f"{auth0.url}/"
        access = aged(iss=issuer, sub="auth0|602c0dcab993d10073daf680", aud=["https://orders.example"], azp="web")
        named = access | {"https://orders.example/sid": "375UI9dgdeKkPl3JvoaNOoU8yA9"}
        logout = {
            "iss": issuer,
            "sub": "auth0|602c0dcab993d10073daf680",
            "aud": "the-client-id",
            "events": {LOGOUT: {}},
            "trace_id": "7b70d8e0d6d2bbd8",
            "sid": "375UI9dgdeKkPl3JvoaNOoU8yA9",
        }
        assert auth0.check(named) is Verdict.ALLOW
        assert await auth0.log_out(logout, "JWT") == 400  # Auth0 says of a logout token that it is one
        assert await auth0.log_out(logout) == 200
        await auth0.becomes(Verdict.REVOKED, named)
        assert auth0.check(access) is Verdict.ALLOW


@pytest.mark.parametrize(
    "kind",
    [
        f"{RISC}account-disabled",
        f"{RISC}sessions-revoked",
        "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked",
    ],
)
async def test_google(kind: str) -> None:
    """All tokens end of the user who signed in with the Google account; one who did not is unknown."""
    async with running("Google") as google:
        issuer = "https://accounts.google.com/"
        claims = {
            "iss": issuer,
            "aud": google.names["CLIENTS"][0],
            "iat": int(time.time()),
            "exp": None,
            "jti": uuid.uuid4().hex,
        }

        async def push(kind: str, payload: dict[str, Any]) -> int:
            token = google.sign(claims | {"events": {kind: payload}}, "JWT")
            headers = {"Content-Type": "application/secevent+jwt"}
            return (await google.client.post("/google", content=token, headers=headers)).status_code

        def about(sub: str) -> dict[str, Any]:
            return {"subject": {"subject_type": "iss-sub", "iss": issuer, "sub": sub}, "reason": "hijacking"}

        access = aged(sub="alice")
        assert google.check(access) is Verdict.ALLOW
        assert await push(kind, about("stranger")) == 400
        assert await push(kind, about("7375626A656374")) == 202
        await google.becomes(Verdict.REVOKED, access)
        assert await push(f"{RISC}verification", {"state": "what you asked Google to send"}) == 202
        assert await push(f"{RISC}verification", {"state": "what a stranger sent"}) == 400
