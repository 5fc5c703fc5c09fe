"""Errors about tokens that are checked, watched or renewed."""

from __future__ import annotations

import math
from datetime import datetime

from jwt_events.errors._base import JWTEventsError, Unavailable


class InvalidClaims(JWTEventsError, ValueError):
    """The value is not the claims of a token. Raised by every check of a revocation list: refuse the token (HTTP 401).

    Attributes:
        claim: the name of the invalid claim; ``claims`` if the value is not a mapping of claims.
    """

    def __init__(self, claim: str, problem: str) -> None:
        super().__init__(f"{claim}: {problem}")
        self.claim = claim


class NotLive(JWTEventsError):
    """The token must be refused. Raised by `RevocationList.ensure_live`; the subclass says why and how to reply."""


class RevokedTokenError(NotLive):
    """The token is revoked: reply with HTTP 401.

    Attributes:
        rule: the kind of the rule that revokes it, suitable as a metric label: ``token``, ``session``,
            ``user_at_client``, ``user``, ``client``, ``key``, ``claims`` or ``everyone``.
        issued_before: the rule revokes tokens issued up to this instant; ``None`` if it revokes all.
    """

    def __init__(self, rule: str, issued_before: datetime | None = None) -> None:
        cutoff = "" if issued_before is None else f" up to {issued_before.isoformat(timespec='milliseconds')}"
        about = rule if rule == "everyone" else f"its {rule.replace('_', ' ')}"
        super().__init__(f"the token is revoked by a rule about {about}{cutoff}")
        self.rule = rule
        self.issued_before = issued_before


class ExpiredTokenError(NotLive):
    """The token has expired while it was in use: by a WebSocket, a stream, a long task. Reply with HTTP 401.

    Attributes:
        expired_at: its ``exp``, in seconds since 1970.
    """

    def __init__(self, expired_at: float) -> None:
        super().__init__("the token has expired while it was in use: renew it before, with a new token of its subject")
        self.expired_at = expired_at


class StaleRevocationsError(NotLive, Unavailable):
    """The revocation list is not current, so it is unknown whether the token is revoked.

    Reply with HTTP 503, not 401, which would make clients discard valid tokens. The ``__cause__``, if there is one, is
    the most recent failure of the list.

    Attributes:
        staleness: seconds since the list was last proven current; infinite if it never was.
        max_staleness: the limit in seconds.
        waits_for: the position that was asked for and that the list has not reached yet; ``None`` if none was.
    """

    def __init__(self, staleness: float, max_staleness: float, waits_for: str | None = None) -> None:
        if waits_for is not None:
            message = f"the revocation list has not applied the event at {waits_for} yet"
        elif staleness == math.inf:
            message = "the revocation list is not current: it is not open, or has not read its history yet"
        else:
            limit = f"the limit is {max_staleness:g} s"
            message = f"revocations were last known to be current {staleness:.1f} s ago; {limit}"
        super().__init__(message, retry_after=max_staleness)
        self.staleness = staleness
        self.max_staleness = max_staleness
        self.waits_for = waits_for


class RenewalRefused(JWTEventsError):
    """A token that cannot take the place of the one in use, which stays in use. Raised by `Watch.renew`.

    Attributes:
        claim: the name of the claim that tells.
    """

    def __init__(self, claim: str, problem: str) -> None:
        super().__init__(f"{claim}: {problem}")
        self.claim = claim


class AnotherSubject(RenewalRefused):
    """The token belongs to another user, client or issuer than the one in use: open another connection with it."""


class OlderToken(RenewalRefused):
    """The token was issued before the one in use, or does not say when, or expires earlier: get a new one."""
