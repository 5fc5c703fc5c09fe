"""The rows of the table: what is compared, who takes part, and what we promise.

A *row* is one kind of work, a *contender* somebody who does it, a *run* one repetition of it by one contender. Less is
better in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bench import alone, memory, work
from bench.contenders import EVERYBODY, Contender, Shape, across, alone_at, on, watched
from bench.watching import WAYS, metrics


@dataclass(frozen=True)
class Floor:
    """What one of our contenders must reach.

    Attributes:
        name: the contender.
        least: how many times as long, or as much, the other one must take.
        against: the other one.
        most: or the largest value allowed.
    """

    name: str
    least: float = 0.0
    against: str | None = None
    most: float = 0.0

    def __str__(self) -> str:
        if self.against is None:
            return f"at most {self.most:g}"
        return f"at least {self.least:.3g} times {self.against}"


@dataclass(frozen=True)
class Row:
    """One kind of work.

    Attributes:
        id: for ``--only``.
        title: for the table.
        unit: of the values.
        contenders: who takes part; the first is the one that the others are compared with.
        floors: what we must reach.
        rounds: how often each does it, after one round that only warms up; ``None`` for as often as the command says.
        fresh: whether each run needs a new process.
        limit: seconds that a run may take.
        loop: the event loop that the work is about; ``None`` for the one that the command names.
    """

    id: str
    title: str
    unit: str
    contenders: Sequence[Contender]
    floors: Sequence[Floor] = ()
    rounds: int | None = None
    fresh: bool = False
    limit: float = 12.0
    loop: str | None = None


STREAM, PUBSUB = "stream", "Pub/Sub"
OURS, RAW = "jwt_events stream", "redis-py stream"
WITH_METRICS = f"{OURS}, metrics"
LISTEN = "redis-py listen() + validate"
CHECK, EXISTS = "RevocationList.check", "redis-py EXISTS"
IMPORTS = {
    "import jwt_events": "jwt_events",
    "import what it is made of": "redis.asyncio, pydantic, prometheus_client, opentelemetry.trace, loguru",
    "import faststream.redis": "faststream.redis",
    "import taskiq_redis": "taskiq_redis",
    "import coredis": "coredis",
    "import glide": "glide",
}


def fan_out(subscribers: int) -> Shape:
    """Let so many listen in one process: about 4,000 deliveries in all."""
    return partial(work.through, number=max(50, 4_000 // subscribers), tasks=20, subscribers=subscribers)


ROWS: Sequence[Row] = (
    Row(
        "publish-one-stream",
        "publish one by one, stream",
        "µs",
        on(STREAM, partial(work.publish, number=2_000), *EVERYBODY),
        (Floor(OURS, 0.9, RAW),),
    ),
    Row(
        "publish-one-pubsub",
        "publish one by one, Pub/Sub",
        "µs",
        on(PUBSUB, partial(work.publish, number=2_000), *EVERYBODY),
    ),
    Row(
        "publish-200-stream",
        "publish from 200 tasks, stream",
        "µs",
        on(STREAM, partial(work.publish, number=4_000, tasks=200), *EVERYBODY),
        (Floor(OURS, 10, "FastStream stream"), Floor(OURS, 2, "valkey-glide stream")),
    ),
    Row(
        "publish-200-pubsub",
        "publish from 200 tasks, Pub/Sub",
        "µs",
        on(PUBSUB, partial(work.publish, number=4_000, tasks=200), *EVERYBODY),
        (
            Floor("jwt_events Pub/Sub", 10, "FastStream Pub/Sub"),
            Floor("jwt_events Pub/Sub", 2, "valkey-glide Pub/Sub"),
        ),
    ),
    Row(
        "publish-many",
        "publish 1,000 with each call, stream",
        "µs",
        on(
            STREAM,
            partial(work.publish_many, number=20_000),
            "jwt_events", "redis-py", "FastStream", "coredis", "valkey-glide",
        ),
        (Floor(OURS, 1.3, RAW),),
    ),
    Row(
        "drain",
        "drain a stream into handlers",
        "µs",
        [
            watched(STREAM, partial(work.drain, number=200_000), ", metrics", metrics),
            *on(STREAM, partial(work.drain, number=200_000), "jwt_events", "redis-py"),
            alone_at(LISTEN, alone.listen(200_000)),
            *on(STREAM, partial(work.drain, number=200_000), "valkey-glide"),
            *on(STREAM, partial(work.drain, number=50_000), "coredis"),
            *on(STREAM, partial(work.drain, number=20_000), "FastStream"),
            *on(STREAM, partial(work.drain, number=5_000), "taskiq-redis"),
        ],
        (Floor(WITH_METRICS, 10, "FastStream stream"), Floor(WITH_METRICS, 0.8, LISTEN)),
        rounds=3,
        limit=40.0,
    ),
    Row(
        "group",
        "drain as a member of a group, and acknowledge",
        "µs",
        [
            *on(STREAM, partial(work.drain, number=20_000, group=True), "jwt_events", "redis-py", "valkey-glide"),
            *on(STREAM, partial(work.drain, number=5_000, group=True), "FastStream", "coredis", "taskiq-redis"),
        ],
    ),
    Row(
        "through-pubsub",
        "publish and handle in one process, Pub/Sub",
        "µs",
        on(PUBSUB, partial(work.through, number=4_000), *EVERYBODY),
    ),
    Row(
        "across-stream",
        "publish in one process, handle in another, stream",
        "µs",
        across("across-stream", STREAM, *EVERYBODY),
        rounds=3,
    ),
    Row(
        "across-pubsub",
        "publish in one process, handle in another, Pub/Sub",
        "µs",
        across("across-pubsub", PUBSUB, *EVERYBODY),
        rounds=3,
    ),
    Row(
        "latency",
        "from publish to handler at 1,000 events/s, p99",
        "ms",
        [
            *on(STREAM, partial(work.latency, seconds=2.0), "jwt_events"),
            *on(PUBSUB, partial(work.latency, seconds=2.0), "jwt_events", "redis-py", "FastStream", "valkey-glide"),
            Contender("jwt_events RevocationList", lambda: work.latency(alone.Revocations(), seconds=2.0)),
        ],
        (Floor(OURS, 1 / 1.5, "redis-py Pub/Sub"), Floor("jwt_events Pub/Sub", 1 / 1.5, "redis-py Pub/Sub")),
        rounds=3,
    ),
    *(
        Row(
            f"fan-out-{subscribers}",
            f"fan out to {subscribers} {'subscribers' if subscribers > 1 else 'subscriber'}, a delivery",
            "µs",
            [
                *on(PUBSUB, fan_out(subscribers), "jwt_events", "redis-py", "FastStream", "broadcaster"),
                *on(STREAM, fan_out(subscribers), "jwt_events", "redis-py"),
            ],
        )
        for subscribers in (1, 10, 50, 200)
    ),
    Row(
        "check",
        "ask whether a token is revoked",
        "µs",
        [alone_at(CHECK, alone.check), alone_at(EXISTS, alone.exists)],
        (Floor(CHECK, most=1.0),),
    ),
    Row(
        "catch-up",
        "catch up with 1,000,000 revocations, a revocation",
        "µs",
        [
            alone_at("RevocationList", alone.catch_up(1_000_000)),
            alone_at("redis-py XREAD COUNT 1000 + validate", alone.read(1_000_000)),
        ],
        (Floor("RevocationList", 1 / 2.5, "redis-py XREAD COUNT 1000 + validate"),),
        rounds=1,
        limit=120.0,
    ),
    Row(
        "memory-rule",
        "memory of a rule, of 1,000,000",
        "bytes",
        [
            alone_at("RevocationList", alone.keep(1_000_000)),
            alone_at("dict[str, float]", alone.keep_bare(1_000_000)),
        ],
        (Floor("RevocationList", most=110),),
        rounds=1,
        fresh=True,
        limit=120.0,
    ),
    # asyncio's streams make a buffer of 256 KiB for every read of a socket; uvloop has one for ever, and so have we.
    Row(
        "memory-publish-uvloop",
        "memory that a publish needs, on uvloop",
        "bytes",
        [
            *on(STREAM, memory.allocation, *EVERYBODY),
            *on(PUBSUB, memory.allocation, "jwt_events", "redis-py"),
        ],
        (Floor(OURS, most=3_500), Floor("jwt_events Pub/Sub", most=3_500)),
        loop="uvloop",
    ),
    Row(
        "memory-publish-asyncio",
        "memory that a publish needs, on asyncio",
        "bytes",
        on(STREAM, memory.allocation, "jwt_events", "redis-py"),
        (Floor(OURS, most=3_500),),
        rounds=1,
        loop="asyncio",
    ),
    Row(
        "memory-drain",
        "memory that draining 20,000 events needs at most",
        "MB",
        [
            watched(STREAM, lambda client: memory.peak(work.drain(client, number=20_000)), ", metrics", metrics),
            *on(
                STREAM,
                lambda client: memory.peak(work.drain(client, number=20_000)),
                "redis-py", "valkey-glide", "FastStream",
            ),
        ],
        rounds=3,
        fresh=True,
    ),
    Row(
        "watching",
        "publish and handle, watched in several ways, processor time",
        "µs",
        [watched(STREAM, partial(work.watched, number=5_000), suffix, options) for suffix, options in WAYS.items()],
        (Floor(WITH_METRICS, 0.9, OURS), Floor(f"{OURS}, traced 1 % by Tracing(ratio=0.01)", 0.85, OURS)),
    ),
    Row(
        "import",
        "import",
        "ms",
        [alone_at(name, alone.importing(modules)) for name, modules in IMPORTS.items()],
        (Floor("import jwt_events", 1 / 1.5, "import what it is made of"),),
    ),
    *(
        Row(
            f"size-{size}",
            f"publish and handle with {size / 1_000:g} kB of metadata, stream",
            "µs",
            on(
                STREAM,
                partial(work.through, number=2_000, padding=size),
                "jwt_events", "redis-py", "FastStream",
            ),
        )
        for size in (200, 1_000, 4_000, 16_000)
    ),
)  # fmt: skip


def named(row: str) -> Row:
    """Find a row."""
    return next(found for found in ROWS if found.id == row)
