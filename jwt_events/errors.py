"""All exceptions that this library raises deliberately.

::

    JWTEventsError
    ├── InvalidOption (ValueError)       an option or URL that cannot work
    ├── InvalidEvent (ValueError)        an event that cannot be published as given
    │   ├── EventTooLarge                its encoded form exceeds the limit
    │   └── OutlivesRetention            the stream would trim it while a token it covers is still valid
    ├── DecodeError                      bytes from the wire that are not an event
    ├── InvalidClaims (ValueError)       the value to check is not the claims of a token
    ├── Unavailable                      the answer is not known at the moment; the caller did nothing wrong
    ├── NotLive                          a token that must be refused
    │   ├── RevokedTokenError            it is revoked
    │   └── StaleRevocationsError        unknown, because the list is not current; also Unavailable
    ├── SignalRefused                    a token from another system that is not accepted
    ├── Closed (RuntimeError)            the object was closed, or is already running
    ├── WrongLoop (RuntimeError)         the object belongs to another event loop, or to another thread
    ├── TransportError                   the server, or the connection to it, failed
    │   ├── ConnectionFailed             unreachable, or the connection was lost: worth retrying
    │   │   └── NotProven                what the server says proves nothing: it may be no primary any more
    │   ├── NotConfirmed                 accepted, but too few replicas are known to have it
    │   ├── ServerRefused                the server sent an error reply: a retry rarely helps
    │   └── SubscriptionRefused          the server did not accept the subscription
    ├── PublishError                     at least one event was not confirmed
    │   ├── PublishFailed                it was certainly not published
    │   └── PublishOutcomeUnknown        sent without a reply: it may have been published
    │       └── NotReplicated            accepted by the primary, but not by as many replicas as needed
    └── SigningKeyError                  there is no key to verify a token with
        ├── UnknownKey                   the issuer does not list it, according to the last fetch
        ├── RetiredKey                   a rotation withdrew it
        ├── CompromisedKey               it leaked
        ├── KeysUnavailable              the issuer's keys could not be fetched; also Unavailable
        └── InvalidKeySet                the fetched document is not a set of public keys

A message names the problem and the limit, and never repeats a value that could be a secret. The data that a program
needs to react is on the instance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jwt_events._internal.receipt import Receipt


class JWTEventsError(Exception):
    """Base class of all exceptions of this library: catch it to catch them all.

    They can be pickled and copied, so that process pools pass them on: with their data, without traceback and cause.
    """

    def __reduce__(self) -> tuple[object, ...]:
        """Describe how to make an equal error without calling its constructor, which takes other arguments."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(cls: type[JWTEventsError], arguments: tuple[object, ...]) -> JWTEventsError:
    error = cls.__new__(cls)
    error.args = arguments
    return error


class InvalidOption(JWTEventsError, ValueError):
    """An option or URL that cannot work. Raised where it was passed, before anything is opened: correct the call.

    Attributes:
        option: the parameter's name.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class InvalidEvent(JWTEventsError, ValueError):
    """An event that cannot be published as given. Raised before anything is sent: correct the event.

    Attributes:
        problems: ``(field, problem)`` pairs, without the values.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)


class EventTooLarge(InvalidEvent):
    """The encoded event exceeds ``max_event_bytes``. Raised before it is sent: shorten its ``reason`` or ``metadata``.

    Attributes:
        size: the encoded size in bytes.
        limit: the maximum size in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__([("event", f"{size} bytes when encoded, the limit is {limit}")])
        self.size = size
        self.limit = limit


class OutlivesRetention(InvalidEvent):
    """The event expires later than the stream keeps it. Raised before it is sent.

    A service that starts after the stream has trimmed the event would not learn of the revocation and would accept the
    token. Raise the transport's ``retention`` to the longest lifetime of a token, or issue tokens that expire sooner.

    Attributes:
        retention: how long the transport keeps an event, in seconds.
        needed: how long this event must be kept, in seconds from now.
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
    """Bytes from the wire that are not an event. Raised by `jwt_events.envelope.decode`; skip the message.

    A `Subscriber` counts such a delivery, logs it and goes on, so its handlers never see this error.

    Attributes:
        reason: one of a fixed set of words, suitable as a metric label: ``too_large``, ``not_json``, ``duplicate_key``,
            ``not_an_envelope``, ``invalid_event``.
        detail: the problem and its place, without any value from the payload.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidClaims(JWTEventsError, ValueError):
    """The value is not the claims of a token. Raised by every check of a revocation list: refuse the token (HTTP 401).

    Attributes:
        claim: the name of the invalid claim; ``claims`` if the value is not a mapping of claims.
    """

    def __init__(self, claim: str, problem: str) -> None:
        super().__init__(f"{claim}: {problem}")
        self.claim = claim


class Unavailable(JWTEventsError):
    """The answer is not known at the moment, and the caller did nothing wrong: reply with HTTP 503, not 401.

    Raise it, or a subclass, in your own function that verifies tokens when a service that it depends on is unreachable.

    Attributes:
        retry_after: seconds after which a retry is worthwhile; ``None`` if unknown.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


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


class StaleRevocationsError(NotLive, Unavailable):
    """The revocation list is not current, so it is unknown whether the token is revoked.

    Reply with HTTP 503, not 401, which would make clients discard valid tokens. The ``__cause__``, if there is one, is
    the most recent failure of the list.

    Attributes:
        staleness: seconds since the list was last proven current; infinite if it never was.
        max_staleness: the limit in seconds.
    """

    def __init__(self, staleness: float, max_staleness: float) -> None:
        if staleness == math.inf:
            message = "the revocation list is not current: it is not open, or has not read its history yet"
        else:
            limit = f"the limit is {max_staleness:g} s"
            message = f"revocations were last known to be current {staleness:.1f} s ago; {limit}"
        super().__init__(message, retry_after=max_staleness)
        self.staleness = staleness
        self.max_staleness = max_staleness


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


class Closed(JWTEventsError, RuntimeError):
    """The object was closed, or is already running. Raised when it is used out of turn: correct the program."""


class WrongLoop(JWTEventsError, RuntimeError):
    """The object was opened in another event loop, or in another thread. Raised before anything is done.

    Open, use and close it in one event loop, or make one for each. From another thread, let its loop do the call:
    ``asyncio.run_coroutine_threadsafe(publisher.publish(event), loop)``.
    """


class TransportError(JWTEventsError):
    """A request to the server failed. Whether to retry it is in ``retryable``.

    Attributes:
        maybe_done: whether the server may have executed the command nevertheless.
        retryable: whether the same request may succeed a moment later.
    """

    def __init__(self, message: str, *, maybe_done: bool = False, retryable: bool = False) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
        self.retryable = retryable


class ConnectionFailed(TransportError):
    """The server is unreachable, did not reply in time, or hung up: retry. The message names the server."""

    def __init__(self, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(message, maybe_done=maybe_done, retryable=True)


class NotProven(ConnectionFailed):
    """What the server says proves nothing, because it may be no primary any more. The message says why: retry.

    Attributes:
        reason: one of a few fixed words, suitable as a metric label: ``replica``, ``unknown_role``, ``few_replicas``,
            ``few_sentinels``, ``other_primary``, ``called_down``, ``failing_over``.
    """

    def __init__(self, message: str, *, reason: str, maybe_done: bool = False) -> None:
        super().__init__(message, maybe_done=maybe_done)
        self.reason = reason


class NotConfirmed(TransportError):
    """The server accepted it, but too few replicas are known to have it: a failover may lose it.

    Attributes:
        position: its position in the stream.
        replicas: how many replicas were last known to have it.
    """

    def __init__(self, message: str, *, position: str | None, replicas: int, retryable: bool) -> None:
        super().__init__(message, maybe_done=True, retryable=retryable)
        self.position = position
        self.replicas = replicas


class ServerRefused(TransportError):
    """The server sent an error reply, so it did not execute the command. Look at ``code``; retry only if ``retryable``.

    Attributes:
        code: the first word of the error reply: ``NOPERM``, ``WRONGTYPE``, ``OOM``, …
    """

    def __init__(self, message: str, *, code: str, retryable: bool = False) -> None:
        super().__init__(message, maybe_done=False, retryable=retryable)
        self.code = code


class SubscriptionRefused(TransportError):
    """The server did not accept the subscription to a channel: check the rights of the client on the channel."""


class PublishError(JWTEventsError):
    """The server did not confirm at least one event before the deadline. Publish those events again, or report it.

    Publishing the same event objects again keeps their ids, so that subscribers handle each of them once.

    Attributes:
        event_ids: the ids of the events that were not confirmed.
        receipts: for ``publish_many``, the receipts of the events that were confirmed.
    """

    def __init__(self, message: str, *, event_ids: Sequence[str], receipts: Sequence[Receipt] = ()) -> None:
        super().__init__(message)
        self.event_ids: tuple[str, ...] = tuple(event_ids)
        self.receipts: tuple[Receipt, ...] = tuple(receipts)


class PublishFailed(PublishError):
    """The event was certainly not published: it was not sent, or the server refused it. Publish it again."""


class PublishOutcomeUnknown(PublishError):
    """The event was sent, but no reply came before the deadline, so it may have been published. Publish it again."""


class NotReplicated(PublishOutcomeUnknown):
    """The primary accepted the event, but not as many replicas as the transport asks for (``replicas=``).

    It is delivered, unless the primary is lost before a replica has it. Publishing the same event again is safe.

    Attributes:
        positions: the positions of the events in the stream, in the order of ``event_ids``.
        replicas: how many replicas have all of them, as far as known.
    """

    def __init__(
        self,
        message: str,
        *,
        event_ids: Sequence[str],
        receipts: Sequence[Receipt] = (),
        positions: Sequence[str | None] = (),
        replicas: int = 0,
    ) -> None:
        super().__init__(message, event_ids=event_ids, receipts=receipts)
        self.positions: tuple[str | None, ...] = tuple(positions)
        self.replicas = replicas

    @property
    def position(self) -> str | None:
        """The position of the first of them."""
        return self.positions[0] if self.positions else None


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
    """The issuer's last key set does not contain the token's key, or the token names none: reply with HTTP 401."""


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
