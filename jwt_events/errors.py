"""Every error that this library raises on purpose.

::

    JWTEventsError
    ├── InvalidOption (ValueError)       an option or a URL that cannot work
    ├── InvalidEvent (ValueError)        an event that cannot be published as given
    │   ├── EventTooLarge                its encoded form exceeds the limit
    │   └── OutlivesRetention            it would be trimmed while a token it covers can still live
    ├── DecodeError                      bytes from the wire that are not an event
    ├── InvalidClaims (ValueError)       what was to be checked are not the claims of a token
    ├── Unavailable                      nobody can tell at the moment, through no fault of who asks
    ├── NotLive                          a token that must not be let in
    │   ├── RevokedTokenError            it is revoked
    │   └── StaleRevocationsError        nobody knows: the list is not current; is Unavailable too
    ├── Closed (RuntimeError)            the object was closed, or is already running
    ├── TransportError                   the server, or the way to it
    │   ├── ConnectionFailed             cannot be reached, or was lost: worth trying again
    │   ├── ServerRefused                the server answered "no": trying again will not help
    │   └── SubscriptionRefused          it will not let us listen
    ├── PublishError                     what became of a publish that did not succeed
    │   ├── PublishFailed                surely not published
    │   └── PublishOutcomeUnknown        sent, and no answer: it may have been published
    └── SigningKeyError                  no key to verify a token with
        ├── UnknownKey                   the issuer does not list it, as far as is known
        ├── RetiredKey                   it was withdrawn by a rotation
        ├── CompromisedKey               it leaked
        ├── KeysUnavailable              the issuer's keys could not be fetched: is Unavailable too
        └── InvalidKeySet                what was fetched is no set of public keys

The message names what was wrong and the limit, and never repeats a value that could be a secret. What a program needs
to react is data on the instance.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jwt_events._internal.receipt import Receipt


class JWTEventsError(Exception):
    """The root: catch this to catch everything the library raises on purpose."""


class InvalidOption(JWTEventsError, ValueError):
    """An option or a URL that cannot work; raised where it was given, before anything is opened.

    Attributes:
        option: the name of the parameter.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class InvalidEvent(JWTEventsError, ValueError):
    """An event that cannot be published as given; nothing was sent.

    Attributes:
        problems: ``(field, what is wrong)`` for each problem, without the values.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)


class EventTooLarge(InvalidEvent):
    """The encoded event is larger than ``max_event_bytes``.

    Attributes:
        size: its size in bytes.
        limit: the largest size allowed, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__([("event", f"{size} bytes when encoded, the limit is {limit}")])
        self.size = size
        self.limit = limit


class OutlivesRetention(InvalidEvent):
    """The event expires after the stream would have forgotten it.

    A service that starts in between would never learn of the revocation and let the token in. Either raise the
    transport's ``retention`` to the longest life of a token, or issue shorter-lived tokens.

    Attributes:
        retention: what the transport keeps, in seconds.
        needed: what this event needs, in seconds from now.
    """

    def __init__(self, retention: float, needed: float) -> None:
        problem = (
            f"expires {needed:.0f} s from now but the transport's retention is {retention:.0f} s: a service that starts"
            " in between would not learn of it; retention must be at least the longest token lifetime"
        )
        super().__init__([("expires_at", problem)])
        self.retention = retention
        self.needed = needed


class DecodeError(JWTEventsError):
    """Bytes from the wire that are not an event.

    Attributes:
        reason: one of a few fixed words, fit for a metric label: ``too_large``, ``not_json``, ``duplicate_key``,
            ``not_an_envelope``, ``invalid_event``.
        detail: what is wrong and where, without any value from the payload.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidClaims(JWTEventsError, ValueError):
    """What was to be checked are not the claims of a token. Do not let it in.

    Attributes:
        claim: which claim is wrong; ``claims`` if they are none at all.
    """

    def __init__(self, claim: str, problem: str) -> None:
        super().__init__(f"{claim}: {problem}")
        self.claim = claim


class Unavailable(JWTEventsError):
    """Nobody can tell at the moment, through no fault of who asks: an HTTP service answers 503, not 401.

    Raise it, or a subclass, from what you plug in to verify tokens, when something that it needs cannot be reached.

    Attributes:
        retry_after: seconds after which it is worth asking again; ``None`` if nobody knows.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotLive(JWTEventsError):
    """A token that must not be let in."""


class RevokedTokenError(NotLive):
    """The token is revoked. An HTTP service answers 401.

    Attributes:
        rule: the kind of rule that says so, fit for a metric label: ``token``, ``session``, ``user_at_client``,
            ``user``, ``client`` or ``key``.
        issued_before: tokens issued up to this instant are revoked; ``None`` if the rule covers all.
    """

    def __init__(self, rule: str, issued_before: datetime | None = None) -> None:
        cutoff = "" if issued_before is None else f" up to {issued_before.isoformat(timespec='milliseconds')}"
        super().__init__(f"the token is revoked by a rule about its {rule.replace('_', ' ')}{cutoff}")
        self.rule = rule
        self.issued_before = issued_before


class StaleRevocationsError(NotLive, Unavailable):
    """The list of revocations is not current, so nobody knows whether the token is revoked.

    An HTTP service answers 503 and not 401, which would make clients throw good tokens away. The cause, where there is
    one, is what went wrong last.

    Attributes:
        staleness: seconds since the list was last proven current; infinite if it never was.
        max_staleness: the limit, in seconds.
    """

    def __init__(self, staleness: float, max_staleness: float) -> None:
        age = "never" if staleness == math.inf else f"{staleness:.1f} s ago"
        message = f"revocations were last known to be current {age}; the limit is {max_staleness:g} s"
        super().__init__(message, retry_after=max_staleness)
        self.staleness = staleness
        self.max_staleness = max_staleness


class Closed(JWTEventsError, RuntimeError):
    """The publisher or subscriber was closed, or is already running."""


class TransportError(JWTEventsError):
    """The server, or the way to it, did not do what was asked.

    Attributes:
        maybe_done: whether the server may have carried out the command all the same.
        retryable: whether the same request can succeed a moment later.
    """

    def __init__(self, message: str, *, maybe_done: bool = False, retryable: bool = False) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
        self.retryable = retryable


class ConnectionFailed(TransportError):
    """The server cannot be reached, did not answer in time, or hung up. The message says which server."""

    def __init__(self, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(message, maybe_done=maybe_done, retryable=True)


class ServerRefused(TransportError):
    """The server answered with an error, so the command was not carried out.

    Attributes:
        code: the first word of the server's answer: ``NOPERM``, ``WRONGTYPE``, ``OOM``, …
    """

    def __init__(self, message: str, *, code: str, retryable: bool = False) -> None:
        super().__init__(message, maybe_done=False, retryable=retryable)
        self.code = code


class SubscriptionRefused(TransportError):
    """The server did not confirm a subscription."""


class PublishError(JWTEventsError):
    """At least one event was not confirmed by the server.

    Attributes:
        event_ids: the ids of the events that were not confirmed. Publishing the same event objects again keeps their
            ids, so that subscribers handle each once.
        receipts: of ``publish_many``, the receipts of those that were confirmed.
    """

    def __init__(self, message: str, *, event_ids: Sequence[str], receipts: Sequence[Receipt] = ()) -> None:
        super().__init__(message)
        self.event_ids: tuple[str, ...] = tuple(event_ids)
        self.receipts: tuple[Receipt, ...] = tuple(receipts)


class PublishFailed(PublishError):
    """Surely not published: nothing was sent, or the server refused it."""


class PublishOutcomeUnknown(PublishError):
    """Sent, but no answer came before the deadline: the server may or may not have accepted it."""


def describe(error: BaseException) -> str:
    """Name an error and the line it came from, without its message, which may quote what it failed on."""
    name = type(error).__qualname__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return name
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}"


class SigningKeyError(JWTEventsError):
    """There is no key to verify a token with.

    `UnknownKey`, `RetiredKey` and `CompromisedKey` refuse the token (HTTP 401); `KeysUnavailable` says that nobody can
    tell for the moment (HTTP 503).

    Attributes:
        fingerprint: stands for the ``kid``, which is whatever the sender of the token made it; ``None`` if there is
            none, or none that could be a key's.
        retry_after: seconds after which asking again may bring another answer; ``None`` if it never will.
    """

    def __init__(self, problem: str, *, fingerprint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.fingerprint = fingerprint
        self.retry_after = retry_after


class UnknownKey(SigningKeyError):
    """The token's key is not among those that the issuer listed last, or the token does not name one."""


class RetiredKey(SigningKeyError):
    """The key was withdrawn: the ``retire_at`` of a `KeyRotated` has passed."""


class CompromisedKey(SigningKeyError):
    """The key leaked, so a signature made with it proves nothing."""


class KeysUnavailable(SigningKeyError, Unavailable):
    """The keys could not be fetched. Why is the ``__cause__``, whose text is up to the program's own ``fetch``."""


class InvalidKeySet(SigningKeyError):
    """What was fetched is not a JWK Set (RFC 7517 §5), or has no key in it that can verify a signature."""
