"""Who signed a token, for whom, and when: what logout tokens and security event tokens have in common."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from jwt_events._internal import options
from jwt_events._internal.functions import awaited, function
from jwt_events.errors import (
    InvalidOption,
    KeysUnavailable,
    SignalRefused,
    SigningKeyError,
    Unavailable,
    UnknownKey,
)
from jwt_events.events import MAX_IDENTIFIER_LENGTH, looks_like_jwt
from jwt_events.keys import SigningKeys
from jwt_events.signals._token import SignedToken, algorithms, parse, refused

if TYPE_CHECKING:
    from jwt import PyJWK

Keys: TypeAlias = "SigningKeys | Callable[[str | None], PyJWK | Awaitable[PyJWK | None] | None]"
"""The keys of an issuer: `SigningKeys`, or a function from the ``kid`` of a token to its key, or ``None``."""

_MAX_DATE = 1e11  # a NumericDate above it is in milliseconds


def current_time() -> float:
    """Return the seconds since 1970."""
    return time.time()


class Verifier:
    """Verifies tokens of one issuer for one recipient: form, issuer, audience, signature, ``iat``, ``exp``, ``jti``."""

    def __init__(
        self, issuer: str, audience: str | Iterable[str], keys: Keys, *, leeway: float, allowed: Iterable[str]
    ) -> None:
        self.issuer = options.name("issuer", issuer)
        names = [audience] if isinstance(audience, str) else [*audience]
        self._audience = frozenset(options.name("audience", name) for name in names)
        if not self._audience:
            raise InvalidOption("audience", "must name who the tokens are for: a client id, or that of a stream")
        if not isinstance(keys, SigningKeys):
            function("keys", keys)
        self._keys = keys
        self.leeway = options.leeway("leeway", leeway)
        self._allowed = algorithms(allowed)
        _require_pyjwt()

    async def verify(self, token: object, check: Callable[[SignedToken, float], None]) -> SignedToken:
        """Verify a token.

        Args:
            token: as it was sent.
            check: raises if the token is of another kind; called with the time, before the signature is verified, as
                it costs less.

        Raises:
            SignalRefused: the token is refused.
            Unavailable: the keys cannot be fetched at the moment, or may not be fetched yet for a ``kid`` that is new.
        """
        parsed = parse(token, self._allowed)
        claims, now = parsed.claims, current_time()
        if claims.get("iss") != self.issuer:
            raise SignalRefused("invalid_issuer", "the issuer (iss) is not the one that is configured")
        self._check_audience(claims.get("aud"))
        self._check_dates(claims, now)
        identifier(claims.get("jti"), "jti")
        check(parsed, now)
        await self._verify_signature(parsed)
        return parsed

    def _check_audience(self, audience: object) -> None:
        names = [audience] if isinstance(audience, str) else audience
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SignalRefused("invalid_audience", "the audience (aud) is missing, or neither text nor a list of it")
        if self._audience.isdisjoint(names):
            raise SignalRefused("invalid_audience", "the token is for another audience (aud)")

    def _check_dates(self, claims: dict[str, Any], now: float) -> None:
        if date(claims.get("iat"), "iat") > now + self.leeway:
            raise refused("iat is in the future")
        if "nbf" in claims and date(claims["nbf"], "nbf") > now + self.leeway:
            raise refused("nbf is in the future")
        if "exp" in claims and date(claims["exp"], "exp") <= now - self.leeway:
            raise refused("the token has expired (exp)")

    async def _verify_signature(self, token: SignedToken) -> None:
        try:
            found = self._keys.get(token.kid) if isinstance(self._keys, SigningKeys) else self._keys(token.kid)
            key: Any = await awaited("keys", found)
        except Unavailable:
            raise
        except UnknownKey as error:
            put_off(error)
            raise SignalRefused("invalid_key", "the key (kid) is not listed by the issuer") from error
        except SigningKeyError as error:
            raise SignalRefused("invalid_key", "the key (kid) is retired or compromised") from error
        if key is None:
            raise SignalRefused("invalid_key", "the key (kid) is unknown")
        if not hasattr(key, "Algorithm"):
            raise InvalidOption("keys", f"must return a PyJWK, not {type(key).__name__}")
        if key.algorithm_name != token.algorithm:
            raise SignalRefused("invalid_key", "the key (kid) is for another algorithm than alg says")
        if not _is_valid(key, token):
            raise SignalRefused("invalid_key", "the signature is not valid")


def put_off(error: SigningKeyError) -> None:
    """Raise `KeysUnavailable` for a key that may be listed by now, although the keys may not be fetched again yet."""
    if isinstance(error, UnknownKey) and error.may_be_listed:
        problem = "the key is unknown, and the keys may not be fetched again yet"
        raise KeysUnavailable(problem, fingerprint=error.fingerprint, retry_after=error.retry_after) from error


def identifier(value: object, name: str) -> str:
    """Return an identifier from a token: text of 1 to 512 characters, not all blank.

    Raises:
        SignalRefused: it is not.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_IDENTIFIER_LENGTH:
        raise refused(f"{name} must be text of 1 to {MAX_IDENTIFIER_LENGTH} characters")
    if looks_like_jwt(value):
        raise refused(f"{name} looks like a whole JWT")
    return value


def date(value: object, name: str) -> float:
    """Return a NumericDate (RFC 7519 §2).

    Raises:
        SignalRefused: it is not a number of seconds since 1970.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_DATE:
        raise refused(f"{name} must be a number of seconds since 1970")
    return float(value)


def _is_valid(key: Any, token: SignedToken) -> bool:
    try:
        return key.Algorithm.verify(token.signed, key.key, token.signature) is True
    except Exception:  # noqa: BLE001 - a key or signature that the library cannot handle proves nothing
        return False


def _require_pyjwt() -> None:
    try:
        import jwt  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ImportError("jwt_events.signals needs PyJWT; get it from a clone: pip install '.[keys]'") from error
