"""What a failure means: to the client as a refusal, to the operator as a line of the log."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.errors import (
    AnotherSubject,
    Closed,
    ExpiredTokenError,
    InvalidClaims,
    InvalidOption,
    OlderToken,
    RevokedTokenError,
    StaleRevocationsError,
    TransportError,
    Unavailable,
)
from jwt_events.guard._reach import missing_claims
from jwt_events.guard._refusal import RefusalCode, Refused
from jwt_events.guard._unreachable import is_unreachable
from jwt_events.revocation import RevocationList

# Errors of the program, not of the token. KeyError is left out: that is how a look-up of a `kid` may fail.
_BUGS = (ArithmeticError, AssertionError, AttributeError, ImportError, NameError, RuntimeError, TypeError)

_CODES: Mapping[type[Exception], RefusalCode] = {
    RevokedTokenError: "revoked_token",
    ExpiredTokenError: "expired_token",
    AnotherSubject: "another_subject",
    OlderToken: "older_token",
}


class Failures:
    """Decides what an error means, and tells the operator what needs attention, once each.

    Args:
        revocations: the list whose state explains some errors.
        realm: the realm of the challenges.
    """

    def __init__(self, revocations: RevocationList, realm: str | None) -> None:
        self._revocations = revocations
        self._realm = realm
        self._notices = Notices()
        self._reported: set[tuple[str, ...]] = set()

    def tell(self, level: str, message: str, **fields: object) -> None:
        """Write a line to the log; what it says is seen once even if the logs are off."""
        self._notices.tell(level, message, once=(message, *fields.values()), **fields)

    def report_missing(self, claims: Mapping[str, object]) -> None:
        """Warn, once for the same claims, of tokens that are let in and that no revocation will reach."""
        missing = missing_claims(claims, self._revocations.claim_names)
        if missing and missing not in self._reported:
            self._reported.add(missing)
            self.tell(
                "WARNING", "token let in that revocations do not reach, claims are missing", claim=", ".join(missing)
            )

    def refusal(self, error: Exception) -> Refused:
        """Return the refusal of a request whose verification raised an error."""
        match error:
            case RevokedTokenError() | ExpiredTokenError() | AnotherSubject() | OlderToken():
                return Refused(_CODES[type(error)], realm=self._realm)
            case StaleRevocationsError():
                return Refused("stale_revocations", retry_after=error.retry_after)
            case Unavailable():
                self.tell("WARNING", "token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable", retry_after=error.retry_after)
            case _ if isinstance(error, TransportError | Closed) or is_unreachable(error):
                self.tell("ERROR", "token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable")
            case InvalidClaims():
                problem = str(error)  # says which type is wrong, and quotes nothing
                self.tell("ERROR", "token refused, its claims cannot be checked", claim=error.claim, problem=problem)
            case InvalidOption():
                self.tell("ERROR", "token refused, verifying it failed", error=str(error))
            case _ if isinstance(error, _BUGS):
                self.tell("ERROR", "token refused, verifying it failed", error=describe(error))
            case _:
                logger.debug("token refused", error=describe(error))
        return Refused("invalid_token", realm=self._realm)
