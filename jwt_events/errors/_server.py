"""Errors of the server, of the connection to it, and of what is published there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jwt_events.errors._base import JWTEventsError

if TYPE_CHECKING:
    from jwt_events._internal.receipt import Receipt


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
            ``few_sentinels``, ``other_primary``, ``called_down``, ``failing_over``, ``other_owner``, ``cluster_down``,
            ``few_primaries``.
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
