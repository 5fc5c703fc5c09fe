"""Errors about signals of other systems."""

from __future__ import annotations

from jwt_events.errors._base import JWTEventsError


class SignalRefused(JWTEventsError):
    """A logout token or security event token that is not accepted: reply with HTTP 400 and these words.

    Attributes:
        err: the code of RFC 8935 §2.4: ``invalid_request``, ``invalid_key``, ``invalid_issuer``, ``invalid_audience``,
            ``authentication_failed``, ``access_denied``; or ``invalid_state`` for a verification event.
        description: what is wrong, without a value from the token.
    """

    def __init__(self, err: str, description: str) -> None:
        super().__init__(f"{err}: {description}")
        self.err = err
        self.description = description


class TransmitterError(JWTEventsError):
    """A request to a transmitter of security events failed: it was not reached, or its answer is no use. Try again.

    Attributes:
        status: the status of its answer; ``None`` if there was none.
        retry_after: seconds after which it asks to try again; ``None`` if it did not say.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class TransmitterRefused(TransmitterError):
    """The transmitter refused a request (4xx but 408 and 429): look at ``status``, the authorization and the stream."""
