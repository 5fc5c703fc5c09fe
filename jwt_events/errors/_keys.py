"""Errors about the keys that tokens are verified with."""

from __future__ import annotations

from jwt_events.errors._base import JWTEventsError, Unavailable


class SigningKeyError(JWTEventsError):
    """There is no key to verify a token with. Raised by `SigningKeys.get`.

    `UnknownKey`, `RetiredKey` and `CompromisedKey` mean that the token is refused (HTTP 401); `KeysUnavailable` means
    that the answer is not known at the moment (HTTP 503).

    Attributes:
        fingerprint: stands for the ``kid``, which the sender of the token chose; ``None`` if the token has none, or one
            that cannot belong to a key.
        retry_after: seconds after which the result may change; ``None`` if it never will.
    """

    def __init__(self, problem: str, *, fingerprint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.fingerprint = fingerprint
        self.retry_after = retry_after


class UnknownKey(SigningKeyError):
    """The issuer's last key set does not contain the token's key, or the token names none: reply with HTTP 401.

    Attributes:
        may_be_listed: whether the issuer may list it by now, since the keys were fetched before this call and may not
            be fetched again yet. What must not be lost, and will be sent again, is then better put off than refused.
    """

    def __init__(
        self,
        problem: str,
        *,
        fingerprint: str | None = None,
        retry_after: float | None = None,
        may_be_listed: bool = False,
    ) -> None:
        super().__init__(problem, fingerprint=fingerprint, retry_after=retry_after)
        self.may_be_listed = may_be_listed


class RetiredKey(SigningKeyError):
    """The key was withdrawn, as the ``retire_at`` of a `KeyRotated` has passed: reply with HTTP 401."""


class CompromisedKey(SigningKeyError):
    """The key leaked, so a signature made with it proves nothing: reply with HTTP 401."""


class KeysUnavailable(SigningKeyError, Unavailable):
    """The keys could not be fetched: reply with HTTP 503. The ``__cause__`` is the error of the program's ``fetch``."""


class InvalidKeySet(SigningKeyError):
    """The fetched document is not a JWK Set (RFC 7517 §5), or holds no key that can verify a signature.

    It is the ``__cause__`` of a `KeysUnavailable`: correct the URL or ``fetch``.
    """
