"""Signed tokens: an issuer that signs and revokes them, and a verifier (RFC 7515, RFC 7519)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from jwt_events import KeyRotated, TokenRevoked
from jwt_events.cli.demo._messages import KINDS, Issued
from jwt_events.events import Event

_ALGORITHM = "ES256"

_LIFETIME = 3600  # of a token, in seconds


class SigningKey:
    """A signing key of the issuer, generated for this run.

    Args:
        key_id: its ``kid``.
    """

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._private = ec.generate_private_key(ec.SECP256R1())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token with these claims."""
        return jwt.encode(dict(claims), self._private, _ALGORITHM, headers={"kid": self.key_id})

    def public(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 7517)."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**public, "kid": self.key_id, "alg": _ALGORITHM}


class TokenIssuer:
    """Signs the tokens of the second act, and makes the events that revoke them.

    The tokens that are revoked one by one belong to the same user, and are signed with the same key, as the one that
    is never revoked: a revocation that reached too far would show.

    Args:
        each: how many tokens for each of `KINDS`.
    """

    def __init__(self, each: int) -> None:
        self._numbers = range(each)
        self._key = SigningKey("main")
        self._leaked_keys = [SigningKey(f"leaked-{number}") for number in self._numbers]
        self._token_ids = [uuid4().hex for _ in self._numbers]
        self._users = [f"user-{number}" for number in self._numbers]

    def issue(self) -> Issued:
        """Sign all tokens."""
        now = int(time.time())

        def token(key: SigningKey, user: str, token_id: str) -> str:
            return key.sign({"jti": token_id, "sub": user, "iat": now, "exp": now + _LIFETIME})

        tokens = [
            *(token(self._key, "somebody", token_id) for token_id in self._token_ids),
            *(token(self._key, user, uuid4().hex) for user in self._users),
            *(token(key, "somebody", uuid4().hex) for key in self._leaked_keys),
            token(self._key, "somebody", uuid4().hex),
        ]
        return Issued(tokens, [key.public() for key in (self._key, *self._leaked_keys)])

    def revocations(self, kind: str) -> Iterator[tuple[int, Event]]:
        """Yield, for each token of a kind, its number and the event that revokes it, dated now."""
        for number in self._numbers:
            match kind:
                case "token":
                    event: Event = TokenRevoked(token_id=self._token_ids[number], reason="device lost")
                case "user":
                    event = TokenRevoked(user_id=self._users[number], reason="password changed")
                case _:
                    leaked = self._leaked_keys[number].key_id
                    event = KeyRotated(key_id=leaked, algorithm=_ALGORITHM, compromised=True)
            yield KINDS.index(kind) * len(self._numbers) + number, event


class Verifier:
    """Verifies the signatures of tokens.

    Args:
        keys: the issuer's public keys, each as a JWK.
    """

    def __init__(self, keys: Iterable[Mapping[str, str]]) -> None:
        self._keys = {key["kid"]: jwt.PyJWK(dict(key)) for key in keys}

    def claims(self, token: str) -> dict[str, Any]:
        """Return the verified claims of a token, and the ``kid`` of its header.

        Raises:
            InvalidTokenError: the signature is wrong, or the token has expired.
        """
        key_id = jwt.get_unverified_header(token)["kid"]
        return {**jwt.decode(token, self._keys[key_id], algorithms=[_ALGORITHM]), "kid": key_id}
