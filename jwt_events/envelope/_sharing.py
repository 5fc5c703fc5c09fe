"""Messages that several readers of one process receive: each is decoded once, and each reader gets an event of its own.

A process may have many subscribers and lists on one destination: in tests, in a monolith, with a list for each
application. All of them receive the same bytes. Where there are few readers, nothing is kept and nothing looked up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeAlias

from jwt_events.envelope._codec import Envelope, decode
from jwt_events.events import Event, fixed_values, from_fixed_values
from jwt_events.transport.base import Transport

# From so many readers on it pays: to keep a message costs more than to decode it once again, and less than twice.
_MANY = 3

# How many messages a destination keeps at least, twice as many at most, and how large each may be. Readers lag behind
# one another by a batch or so; what was forgotten is decoded again.
_KEPT = 512
_MAX_BYTES = 2_048


Decoder: TypeAlias = Callable[[bytes], Envelope]
"""Decodes a message, or raises `DecodeError`."""


_Decoded: TypeAlias = tuple[type[Event], dict[str, Any], str | None, str | None]
"""What is kept of an envelope: the class and the values of its event, and its trace context.

A plain tuple, as to unpack it takes a fifth of the time.
"""


class _Shared:
    """What the readers of one destination have decoded lately."""

    def __init__(self) -> None:
        self.readers: weakref.WeakSet[Readership] = weakref.WeakSet()
        self._recent: dict[bytes, _Decoded] = {}
        self._older: dict[bytes, _Decoded] = {}

    def decode(self, payload: bytes) -> Envelope:
        """Decode a message, or make another event of what another reader has decoded."""
        if (known := self._recent.get(payload)) is None:
            known = self._older.get(payload)
        if known is not None:
            cls, values, traceparent, tracestate = known
            return Envelope(from_fixed_values(cls, values), traceparent, tracestate)
        envelope = decode(payload)
        if len(payload) <= _MAX_BYTES and not envelope.confirm:
            self._keep(payload, envelope)
        return envelope

    def _keep(self, payload: bytes, envelope: Envelope) -> None:
        event = envelope.event
        if (values := fixed_values(event)) is None:
            return
        if len(self._recent) >= _KEPT:
            self._older, self._recent = self._recent, {}
        self._recent[payload] = type(event), values, envelope.traceparent, envelope.tracestate

    def clear(self) -> None:
        """Forget all messages."""
        self._recent, self._older = {}, {}


class Readership:
    """One reader of a transport, among the readers of the same destination in this process, while it is entered.

    Args:
        transport: what is read. Destinations that are called the same, on different servers, count as the same one:
            equal bytes are equal events. Members of a group receive different ones, and share nothing.
    """

    _all: ClassVar[weakref.WeakValueDictionary[str, _Shared]] = weakref.WeakValueDictionary()

    def __init__(self, transport: Transport) -> None:
        alone = _Shared()
        self._shared = self._all.setdefault(transport.destination, alone) if transport.guarantees.fan_out else alone

    def __enter__(self) -> Self:
        """Begin to read. Idempotent."""
        self._shared.readers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Read no more. Idempotent."""
        self._shared.readers.discard(self)
        if len(self._shared.readers) < _MANY:
            self._shared.clear()

    def decoder(self) -> Decoder:
        """Return how to decode the next messages. They raise the same errors in either way."""
        return self._shared.decode if len(self._shared.readers) >= _MANY else decode
