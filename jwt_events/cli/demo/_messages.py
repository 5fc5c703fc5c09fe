"""What the processes of the demo say to each other: one message a line, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import get_args

from jwt_events import RedisPubSub, RedisStream


class Latencies(Counter[float]):
    """How many events took how many milliseconds. Kept with three digits, so that millions of them stay small."""

    def note(self, milliseconds: float) -> float:
        """Count one, and return it as it is kept."""
        kept = float(f"{max(milliseconds, 0.0):.3g}")
        self[kept] += 1
        return kept

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that so many percent of all do not exceed; ``None`` if there are none."""
        needed = self.total() * percent / 100
        for value, number in sorted(self.items()):
            needed -= number
            if needed <= 0:
                return value
        return None


KINDS = ("token", "user", "signing key")
"""What can be revoked, in the order in which the demo does it."""

ALLOWED, REVOKED, STALE = 200, 401, 503
"""The HTTP status of an answer: let in, revoked, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the processes of one demo have in common; the first message to each.

    Attributes:
        url: the server.
        transport: ``stream`` or ``pubsub``: what carries the events of the first act.
        destination: their key or channel.
        events: how many to publish.
        rate: how many of them per second; 0 means as fast as possible.
        max_staleness: seconds after which a service that hears nothing lets nobody in.
    """

    url: str = field(repr=False)
    transport: str
    destination: str
    events: int
    rate: float
    max_staleness: float = 1.0

    @property
    def revocations(self) -> str:
        """The key of the second act."""
        return f"{self.destination}:revocations"

    def make_transport(self) -> RedisStream | RedisPubSub:
        """Make the transport that was asked for; it connects when it is used."""
        if self.transport == "stream":
            return RedisStream(self.url, key=self.destination)
        return RedisPubSub(self.url, channel=self.destination)

    def make_durable_transport(self) -> RedisStream:
        """Make the transport of the second act: a list of revocations needs one that remembers."""
        return RedisStream(self.url, key=self.revocations)


@dataclass(frozen=True, slots=True)
class Report:
    """How far a process has come in the first act. The first one means that it is ready.

    Attributes:
        count: events published, or distinct events handled.
        latency_ms: from the making of the event that was handled last to its handler.
        recent: the event that was published last: type, fingerprint of its subject, remark.
        final: nothing more will follow in this act.
        latencies: all of them, in the final report of a subscriber: ``(milliseconds, how many)``.
        error: why the process had to give up.
    """

    count: int = 0
    latency_ms: float | None = None
    recent: Sequence[str] | None = None
    final: bool = False
    latencies: Sequence[tuple[float, int]] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """To the issuer: publish the events."""


@dataclass(frozen=True, slots=True)
class Finish:
    """To a service: all events are out; say what was handled."""


@dataclass(frozen=True, slots=True)
class Issue:
    """To the issuer: make tokens.

    Attributes:
        each: how many for each of `KINDS`.
    """

    each: int


@dataclass(frozen=True, slots=True)
class Issued:
    """From the issuer, and on to the services: tokens, for whoever will use them.

    Attributes:
        tokens: in the order of `KINDS`, and one more that stays good.
        keys: the public keys, each as a JWK (RFC 7517).
    """

    tokens: Sequence[str] = field(repr=False)
    keys: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Revoke:
    """To the issuer: revoke all of a kind, one after another.

    Attributes:
        kind: which of `KINDS`.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """From the issuer: the server has accepted a revocation. Times are those of `time.monotonic`.

    Attributes:
        number: which of the tokens it is about.
        published_at: when ``publish`` was called.
        acknowledged_at: when it returned.
    """

    number: int
    published_at: float
    acknowledged_at: float


@dataclass(frozen=True, slots=True)
class Answers:
    """From a service: what it has answered to requests since the last time.

    Attributes:
        given: each with the number of the token, the HTTP status, and the time (`time.monotonic`).
    """

    given: Sequence[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Renew:
    """To a service: forget what you know of revocations and learn it anew, as an instance that starts now would."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """From a service: what comes from now on is answered from what the server remembers.

    Attributes:
        at: the time (`time.monotonic`).
    """

    at: float


Message = Order | Report | Begin | Finish | Issue | Issued | Revoke | Revoked | Answers | Renew | Renewed

_BY_NAME = {message.__name__: message for message in get_args(Message)}


def to_line(message: Message) -> bytes:
    """Write a message as one line."""
    return json.dumps([type(message).__name__, asdict(message)]).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Read what `to_line` wrote."""
    name, fields = json.loads(line)
    message: Message = _BY_NAME[name](**fields)
    return message
