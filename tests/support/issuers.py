"""A test issuer of tokens with real keys, and a manual clock."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


@cache
def private_key(kid: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of this name, the same one every time."""
    return ec.generate_private_key(ec.SECP256R1())


def entry(kid: str, /, **changes: Any) -> dict[str, Any]:
    """Return the entry of a JWK Set for the key of this name; a change to ``None`` takes a member away."""
    jwk = {**ECAlgorithm.to_jwk(private_key(kid).public_key(), as_dict=True), "kid": kid, "use": "sig", **changes}
    return {name: value for name, value in jwk.items() if value is not None}


class Issuer:
    """Publishes a JWK Set, and counts its fetches.

    Attributes:
        entries: the entries that it publishes.
        calls: count of fetches that were started.
        open: while this is not set, fetches wait.
        error: the error that fetches fail with; ``None`` lets them succeed.
    """

    def __init__(self, *kids: str) -> None:
        self.entries: list[Any] = []
        self.list(*kids)
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: BaseException | None = None

    def list(self, *kids: str) -> None:
        """Publish the keys with these names and no others."""
        self.entries = [entry(kid) for kid in kids]

    async def fetch(self) -> dict[str, Any]:
        """Return the set that was published when the fetch started."""
        self.calls += 1
        published = {"keys": self.entries}
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return published

    def token(self, kid: str) -> str:
        """Sign a token with the key of this name."""
        return jwt.encode({"sub": "user-1"}, private_key(kid), "ES256", headers={"kid": kid})


class Clock:
    """A manual clock in place of the module ``time``; only `advance` moves it."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._began = float(int(time.time()))  # whole, so that sums are exact

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds

    def monotonic(self) -> float:
        """Return seconds on a clock of unknown origin."""
        return 1_000.0 + self._passed

    def time(self) -> float:
        """Return the seconds since 1970."""
        return self._began + self._passed
