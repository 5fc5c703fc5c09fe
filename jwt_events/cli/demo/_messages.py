"""Messages between the processes of the demo: one JSON array on each line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import get_args

from jwt_events import RedisPubSub, RedisStream

KINDS = ("token", "user", "signing key")
"""What is revoked, in the order in which the demo does it."""

ALLOWED, REVOKED, STALE = 200, 401, 503
"""HTTP statuses of the responses: let in, revoked, or unknown because the service is not up to date."""


class Latencies(Counter[float]):
    """A histogram of latencies: milliseconds to count. Values keep three digits, so that it stays small."""

    def record(self, milliseconds: float) -> float:
        """Add a latency, and return it as it is kept."""
        kept = float(f"{max(milliseconds, 0.0):.3g}")
        self[kept] += 1
        return kept

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that this percentage of all values does not exceed; ``None`` without values."""
        needed = self.total() * percent / 100
        for value, count in sorted(self.items()):
            needed -= count
            if needed <= 0:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings that all processes of a run share; the first message to each.

    Attributes:
        url: the server.
        transport: ``stream`` or ``pubsub``: what carries the events of the first act.
        destination: their key or channel.
        events: how many to publish.
        rate: how many of them per second; 0 means as fast as possible.
        max_staleness: seconds after which a service without proof of being current lets no token in.
    """

    url: str = field(repr=False)
    transport: str
    destination: str
    events: int
    rate: float
    max_staleness: float = 1.0

    @property
    def revocations(self) -> str:
        """The key of the stream of the second act."""
        return f"{self.destination}:revocations"

    def make_transport(self) -> RedisStream | RedisPubSub:
        """Make the transport of the first act; it connects when it is used."""
        if self.transport == "stream":
            return RedisStream(self.url, key=self.destination)
        return RedisPubSub(self.url, channel=self.destination)

    def make_durable_transport(self) -> RedisStream:
        """Make the transport of the second act, which is durable because a `RevocationList` needs that."""
        return RedisStream(self.url, key=self.revocations)


@dataclass(frozen=True, slots=True)
class Report:
    """The progress of a process in the first act. The first one means that it is ready.

    Attributes:
        count: events published, or distinct events handled.
        latency_ms: from the making of the event that was handled last to its handler.
        recent: the event that was published last: type, fingerprint of its subject, remark.
        final: nothing more will follow in this act.
        latencies: all of them, in the final report of a subscriber: ``(milliseconds, count)``.
        error: why the process gave up.
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
    """To a service: all events were published; send the final report."""


@dataclass(frozen=True, slots=True)
class Issue:
    """To the issuer: sign tokens.

    Attributes:
        each: how many for each of `KINDS`.
    """

    each: int


@dataclass(frozen=True, slots=True)
class Issued:
    """From the issuer, and on to the services: the tokens with which requests are made.

    Attributes:
        tokens: in the order of `KINDS`, and one more that is never revoked.
        keys: the public keys, each as a JWK (RFC 7517).
    """

    tokens: Sequence[str] = field(repr=False)
    keys: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Revoke:
    """To the issuer: revoke all tokens of a kind, one after another.

    Attributes:
        kind: which of `KINDS`.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """From the issuer: the server has accepted a revocation. Times are those of `time.monotonic`.

    Attributes:
        number: the number of the token.
        published_at: when ``publish`` was called.
        acknowledged_at: when it returned.
    """

    number: int
    published_at: float
    acknowledged_at: float


@dataclass(frozen=True, slots=True)
class Responses:
    """From a service: its responses since the last such message.

    Attributes:
        given: for each, the number of the token, the HTTP status, and the time (`time.monotonic`).
    """

    given: Sequence[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """To a service: replace the list of revocations by one that replays the stream, as a new instance would."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """From a service: later responses come from a list that has replayed the stream.

    Attributes:
        at: the time (`time.monotonic`).
    """

    at: float


Message = Setup | Report | Begin | Finish | Issue | Issued | Revoke | Revoked | Responses | Rebuild | Rebuilt

_BY_NAME = {message.__name__: message for message in get_args(Message)}


def to_line(message: Message) -> bytes:
    """Encode a message as one line."""
    return json.dumps([type(message).__name__, asdict(message)]).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Decode what `to_line` has encoded."""
    name, fields = json.loads(line)
    message: Message = _BY_NAME[name](**fields)
    return message
