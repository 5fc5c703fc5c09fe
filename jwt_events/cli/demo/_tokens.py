"""Real tokens: signed by the issuer, verified by the services (RFC 7515, RFC 7519)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ALGORITHM = "ES256"


class SigningKey:
    """A key of the issuer, made for this run.

    Args:
        key_id: its ``kid``.
    """

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._private = ec.generate_private_key(ec.SECP256R1())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token with these claims."""
        return jwt.encode(dict(claims), self._private, ALGORITHM, headers={"kid": self.key_id})

    def public(self) -> dict[str, str]:
        """Return what may be known of it, as a JWK (RFC 7517)."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**public, "kid": self.key_id, "alg": ALGORITHM}


class Verifier:
    """Tells tokens of the issuer from others.

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
        return {**jwt.decode(token, self._keys[key_id], algorithms=[ALGORITHM]), "kid": key_id}
