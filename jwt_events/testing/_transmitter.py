"""A transmitter to test receivers with: makes and pushes logout tokens and security event tokens, good and bad."""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.client
import json
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from jwt_events.keys import SigningKeys
from jwt_events.signals import LOGOUT, SSF, STREAM_UPDATED, VERIFICATION

if TYPE_CHECKING:
    from jwt_events.testing._transmitter_server import TransmitterServer

_SET_TYPE = "application/secevent+jwt"
_FORM_TYPE = "application/x-www-form-urlencoded"
_TIMEOUT = 30.0


class Transmitter:
    """An issuer of logout tokens and security event tokens, with a key of its own.

    ::

        transmitter = Transmitter("https://id.example", "orders")
        events = SecurityEvents("https://id.example", "orders", transmitter.keys())
        token = transmitter.security_event(CAEP + "session-revoked", transmitter.subject("alice"))
        for name, (bad, err) in transmitter.bad_security_events().items():
            ...  # each must be refused, with this code

    Args:
        issuer: the ``iss`` of its tokens.
        audience: their ``aud``.

    Raises:
        ImportError: the extra ``keys`` is not installed.
    """

    def __init__(self, issuer: str = "https://transmitter.example", audience: str = "https://receiver.example") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

        self.issuer = issuer
        self.audience = audience
        self.kid: str = uuid.uuid4().hex
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._other_key = ec.generate_private_key(ec.SECP256R1())

    def __repr__(self) -> str:
        return f"<Transmitter {self.issuer}>"

    def jwks(self) -> dict[str, Any]:
        """Return its JWK Set."""
        from jwt.algorithms import ECAlgorithm  # noqa: PLC0415 - an extra

        jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**jwk, "kid": self.kid, "use": "sig", "alg": "ES256"}]}

    def keys(self) -> SigningKeys:
        """Return its keys for a receiver."""

        async def fetch() -> dict[str, Any]:
            return self.jwks()

        return SigningKeys(fetch)

    def subject(self, user: str) -> dict[str, Any]:
        """Return the subject identifier of a user: ``iss_sub`` of this issuer."""
        return {"format": "iss_sub", "iss": self.issuer, "sub": user}

    def sign(
        self, claims: Mapping[str, Any], *, typ: str | None, headers: Mapping[str, Any] | None = None, key: Any = None
    ) -> str:
        """Sign claims as they are.

        Args:
            claims: the payload.
            typ: the ``typ`` of the header; ``None`` leaves it out.
            headers: more members of the header, or others in place of its own.
            key: another private key than its own.
        """
        import jwt  # noqa: PLC0415 - an extra

        header = {"kid": self.kid, "typ": typ, **(headers or {})}
        return jwt.encode(dict(claims), self._key if key is None else key, algorithm="ES256", headers=header)

    def sign_raw(self, signed: bytes) -> str:
        """Sign ``header.payload``, both encoded already, and return the token. They may be anything."""
        from jwt.algorithms import ECAlgorithm  # noqa: PLC0415 - an extra

        signature = ECAlgorithm(ECAlgorithm.SHA256).sign(signed, self._key)
        return f"{signed.decode()}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def security_event(
        self,
        kind: str,
        subject: Mapping[str, Any] | None = None,
        payload: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Make a security event token.

        Args:
            kind: the URI of the type.
            subject: the ``sub_id``; ``None`` leaves it out.
            payload: the content of the event.
            claims: other claims in place of its own; ``None`` leaves one out.
        """
        usual = {**self._common(), "events": {kind: dict(payload or {})}, "sub_id": subject}
        return self.sign(_present(usual | claims), typ="secevent+jwt")

    def logout_token(self, *, sub: str | None = None, sid: str | None = None, **claims: Any) -> str:
        """Make a logout token; other claims are taken in place of its own, ``None`` leaves one out."""
        usual = {**self._common(), "exp": int(time.time()) + 120, "events": {LOGOUT: {}}, "sub": sub, "sid": sid}
        return self.sign(_present(usual | claims), typ="logout+jwt")

    def verification(self, state: str | None = None) -> str:
        """Make a verification event of the stream (SSF 1.0 §8.1.4)."""
        return self.security_event(VERIFICATION, self._stream(), _present({"state": state}))

    def stream_updated(self, status: str) -> str:
        """Make a stream-updated event: ``enabled``, ``paused`` or ``disabled`` (SSF 1.0 §8.1.5)."""
        return self.security_event(STREAM_UPDATED, self._stream(), {"status": status})

    def bad_security_events(self) -> dict[str, tuple[str, str]]:
        """Return tokens that a receiver must refuse: by name, each with the code to refuse it with."""
        kind, subject = f"{SSF.replace('/ssf/', '/caep/')}session-revoked", self.subject("alice")
        make = self.security_event
        claims = {**self._common(), "events": {kind: {}}, "sub_id": subject}
        return {
            **self._bad(claims, "secevent+jwt"),
            "another kind of token": (self.sign(claims, typ="at+jwt"), "invalid_request"),
            "no type": (self.sign(claims, typ=None), "invalid_request"),
            "no events": (make(kind, subject, events=None), "invalid_request"),
            "empty events": (make(kind, subject, events={}), "invalid_request"),
            "no subject": (make(kind), "invalid_request"),
            "unknown subject": (make(kind, {"format": "email", "email": "a@b.example"}), "invalid_request"),
            "unknown format": (make(kind, {"format": "smoke_signal"}), "invalid_request"),
            "sub": (make(kind, subject, sub="alice"), "invalid_request"),
            "exp": (make(kind, subject, exp=int(time.time()) + 60), "invalid_request"),
            "event in the future": (
                make(kind, subject, {"event_timestamp": int(time.time()) + 9_000}),
                "invalid_request",
            ),
        }

    def bad_logout_tokens(self) -> dict[str, tuple[str, str]]:
        """Return logout tokens that must be refused: by name, each with the code to refuse it with."""
        claims = {**self._common(), "exp": int(time.time()) + 120, "events": {LOGOUT: {}}, "sub": "alice"}
        make = self.logout_token
        return {
            **self._bad(claims, "logout+jwt"),
            "another kind of token": (self.sign(claims, typ="at+jwt"), "invalid_request"),
            "nonce": (make(sub="alice", nonce="n"), "invalid_request"),
            "neither sub nor sid": (make(), "invalid_request"),
            "no exp": (make(sub="alice", exp=None), "invalid_request"),
            "expired": (make(sub="alice", exp=int(time.time()) - 3_600), "invalid_request"),
            "no events": (make(sub="alice", events=None), "invalid_request"),
            "another event": (make(sub="alice", events={VERIFICATION: {}}), "invalid_request"),
            "two events": (make(sub="alice", events={LOGOUT: {}, VERIFICATION: {}}), "invalid_request"),
            "event that is no object": (make(sub="alice", events={LOGOUT: True}), "invalid_request"),
        }

    def _bad(self, claims: dict[str, Any], typ: str) -> dict[str, tuple[str, str]]:
        good = self.sign(claims, typ=typ)
        header, payload, signature = good.split(".")
        public = next(iter(self.jwks()["keys"]))

        def signed(**changes: Any) -> str:
            return self.sign(_present(claims | changes), typ=typ)

        def with_header(**members: Any) -> str:
            return self.sign(claims, typ=typ, headers=members)

        return {
            "alg none": (f"{_encode({'alg': 'none', 'typ': typ, 'kid': self.kid})}.{payload}.", "invalid_request"),
            "alg of a shared secret": (_with_public_key(public, payload, typ), "invalid_request"),
            "no signature": (f"{header}.{payload}.", "invalid_key"),
            "signature of another key": (self.sign(claims, typ=typ, key=self._other_key), "invalid_key"),
            "payload of another token": (f"{header}.{_encode(claims | {'jti': 'x'})}.{signature}", "invalid_key"),
            "unknown kid": (with_header(kid="unknown"), "invalid_key"),
            "key in the header": (with_header(jwk=public), "invalid_request"),
            "address of keys": (with_header(jku="https://evil.example/jwks"), "invalid_request"),
            "address of certificates": (with_header(x5u="https://evil.example/x5u"), "invalid_request"),
            "critical header": (with_header(crit=["exp"]), "invalid_request"),
            "nested token": (with_header(cty="JWT"), "invalid_request"),
            "another issuer": (signed(iss="https://evil.example"), "invalid_issuer"),
            "no issuer": (signed(iss=None), "invalid_issuer"),
            "another receiver": (signed(aud="somebody-else"), "invalid_audience"),
            "no receiver": (signed(aud=None), "invalid_audience"),
            "no jti": (signed(jti=None), "invalid_request"),
            "no iat": (signed(iat=None), "invalid_request"),
            "iat in the future": (signed(iat=int(time.time()) + 9_000), "invalid_request"),
            "iat in milliseconds": (signed(iat=int(time.time() * 1000)), "invalid_request"),
            "claim twice": (self._with_claim_twice(claims, typ), "invalid_request"),
            "huge number": (signed(big=10**400), "invalid_request"),
            "too large": (signed(padding="x" * 20_000), "invalid_request"),
            "nested too deep": (signed(deep=_nested(500)), "invalid_request"),
            "not a token": ("not a token", "invalid_request"),
            "empty": ("", "invalid_request"),
        }

    def _with_claim_twice(self, claims: Mapping[str, Any], typ: str) -> str:
        import jwt  # noqa: PLC0415 - an extra

        text = json.dumps(claims)
        payload = f'{text[:-1]}, "jti": "another"}}'.encode()
        return jwt.PyJWS().encode(payload, self._key, algorithm="ES256", headers={"kid": self.kid, "typ": typ})

    def _common(self) -> dict[str, Any]:
        return {"iss": self.issuer, "aud": self.audience, "iat": int(time.time()), "jti": uuid.uuid4().hex}

    def _stream(self) -> dict[str, Any]:
        return {"format": "opaque", "id": "stream-1"}

    async def push(self, url: str, token: str, *, authorization: str | None = None) -> tuple[int, dict[str, Any]]:
        """Push a security event token (RFC 8935); return the status, and the JSON of the response if there is some."""
        return await asyncio.to_thread(_post, url, token.encode(), _SET_TYPE, authorization)

    async def log_out(self, url: str, token: str) -> tuple[int, dict[str, Any]]:
        """Send a logout token to a receiver's address; return the status, and the JSON of the response if any."""
        body = urlencode({"logout_token": token}).encode()
        return await asyncio.to_thread(_post, url, body, _FORM_TYPE, None)

    def serve(
        self, *, authorization: str | None = None, long_poll: float = 30.0
    ) -> AbstractAsyncContextManager[TransmitterServer]:
        """Return a context manager that runs it as a server on this machine: polling, and management of streams.

        ::

            async with transmitter.serve(authorization="Bearer secret") as served:
                served.emit(f"{CAEP}session-revoked", transmitter.subject("alice"))
                async with SetPoller(publisher, events, served.poll_url, authorization="Bearer secret"): ...

        Args:
            authorization: the value that the ``Authorization`` header must have.
            long_poll: seconds that it waits for a token before it replies to a long poll.

        Raises:
            ImportError: the extra ``signals`` is not installed.
        """
        from jwt_events.testing._transmitter_server import TransmitterServer  # noqa: PLC0415 - needs an extra

        return TransmitterServer(self, authorization=authorization, long_poll=long_poll)


def _present(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if value is not None}


def _encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _with_public_key(public: Mapping[str, Any], payload: str, typ: str) -> str:
    """Sign with the text of the public key as a shared secret, as in the attack of that name."""
    signed = f"{_encode({'alg': 'HS256', 'kid': public['kid'], 'typ': typ})}.{payload}"
    signature = hmac.digest(json.dumps(public).encode(), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _post(url: str, body: bytes, kind: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
    address = urlsplit(url)
    connect = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = connect(address.netloc, timeout=_TIMEOUT)
    headers = {"Content-Type": kind, "Accept": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    try:
        connection.request("POST", address.path or "/", body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return response.status, json.loads(content) if content else {}
