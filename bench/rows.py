"""The rows of the table: workloads, competitors, and the floors that jwt_events must reach.

A *row* is one kind of workload, a *competitor* a library that runs it, a *run* one repetition of it by one competitor.
Less is better in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bench import fleet, memory, micro, workloads
from bench.competitors import ALL_LIBRARIES, Competitor, WorkloadFactory, across, on, ours_with, single
from bench.watching import VARIANTS, metrics


@dataclass(frozen=True)
class Floor:
    """A performance floor of jwt_events: a minimum ratio to another competitor, or a maximum value.

    Attributes:
        name: the competitor that must reach it.
        minimum: how many times as long, or as much, the other competitor must take.
        against: the other competitor; ``None`` for a maximum.
        maximum: the largest value allowed, where there is no other competitor.
    """

    name: str
    minimum: float = 0.0
    against: str | None = None
    maximum: float = 0.0

    def __str__(self) -> str:
        if self.against is None:
            return f"at most {self.maximum:g}"
        return f"at least {self.minimum:.3g} times {self.against}"


@dataclass(frozen=True)
class Row:
    """One kind of workload.

    Attributes:
        id: for ``--only``.
        title: for the table.
        unit: of the values.
        competitors: the first is the one that the others are compared with.
        floors: what jwt_events must reach.
        rounds: measured rounds at most, after one warm-up round; ``None`` for as many as the command says.
        weight: measured rounds for each of these; more where a floor is near and the rounds differ.
        fresh: whether each run needs a new process.
        limit: seconds that a run may take.
        loop: the event loop that the row is about; ``None`` for the one that the command names.
    """

    id: str
    title: str
    unit: str
    competitors: Sequence[Competitor]
    floors: Sequence[Floor] = ()
    rounds: int | None = None
    weight: int = 1
    fresh: bool = False
    limit: float = 12.0
    loop: str | None = None


STREAM, PUBSUB = "stream", "Pub/Sub"
OURS, RAW = "jwt_events stream", "redis-py stream"
WITH_METRICS = f"{OURS}, metrics"
LISTEN = "redis-py listen() + validate"
CHECK, BARE_CHECK, EXISTS = "RevocationList.check", "a set, asked for each claim", "redis-py EXISTS"
CHECK_CLAIMS = f"{CHECK}, 100 rules about claims"
ENCODE, DECODE, VALIDATE = "jwt_events encode", "jwt_events decode", "pydantic model_validate_json"
IMPORTS = {
    "import jwt_events": "jwt_events",
    "import what it is made of": "redis.asyncio, pydantic, prometheus_client, opentelemetry.trace, loguru",
    "import faststream.redis": "faststream.redis",
    "import taskiq_redis": "taskiq_redis",
    "import coredis": "coredis",
    "import glide": "glide",
}


def fan_out(subscribers: int) -> WorkloadFactory:
    """Return a workload with `subscribers` subscribers in one process: about 4,000 deliveries in all."""
    return partial(workloads.through, count=max(50, 4_000 // subscribers), tasks=20, subscriber_count=subscribers)


ROWS: Sequence[Row] = (
    Row(
        "publish-one-stream",
        "publish one by one, stream",
        "µs",
        on(STREAM, partial(workloads.publish, count=2_000), *ALL_LIBRARIES),
        (Floor(OURS, 0.9, RAW),),
    ),
    Row(
        "publish-one-pubsub",
        "publish one by one, Pub/Sub",
        "µs",
        on(PUBSUB, partial(workloads.publish, count=2_000), *ALL_LIBRARIES),
    ),
    Row(
        "publish-200-stream",
        "publish from 200 tasks, stream",
        "µs",
        on(STREAM, partial(workloads.publish, count=4_000, tasks=200), *ALL_LIBRARIES),
        (Floor(OURS, 7, "FastStream stream"), Floor(OURS, 1.8, "valkey-glide stream")),
        weight=3,
    ),
    Row(
        "publish-200-pubsub",
        "publish from 200 tasks, Pub/Sub",
        "µs",
        on(PUBSUB, partial(workloads.publish, count=4_000, tasks=200), *ALL_LIBRARIES),
        (Floor("jwt_events Pub/Sub", 7, "FastStream Pub/Sub"),),
        weight=3,
    ),
    Row(
        "publish-many",
        "publish 1,000 with each call, stream",
        "µs",
        on(
            STREAM,
            partial(workloads.publish_many, count=20_000),
            "jwt_events", "redis-py", "FastStream", "coredis", "valkey-glide",
        ),
        (Floor(OURS, 1.3, RAW),),
    ),
    Row(
        "drain",
        "drain a stream into handlers",
        "µs",
        [
            ours_with(STREAM, partial(workloads.drain, count=200_000), ", metrics", metrics),
            *on(STREAM, partial(workloads.drain, count=200_000), "jwt_events", "redis-py"),
            single(LISTEN, micro.listen(200_000)),
            *on(STREAM, partial(workloads.drain, count=200_000), "valkey-glide"),
            *on(STREAM, partial(workloads.drain, count=50_000), "coredis"),
            *on(STREAM, partial(workloads.drain, count=20_000), "FastStream"),
            *on(STREAM, partial(workloads.drain, count=5_000), "taskiq-redis"),
        ],
        (Floor(WITH_METRICS, 10, "FastStream stream"), Floor(WITH_METRICS, 1.25, LISTEN)),
        rounds=3,
        weight=3,
        limit=40.0,
    ),
    Row(
        "group",
        "drain as a member of a group, and acknowledge",
        "µs",
        [
            *on(STREAM, partial(workloads.drain, count=20_000, group=True), "jwt_events", "redis-py", "valkey-glide"),
            *on(STREAM, partial(workloads.drain, count=5_000, group=True), "FastStream", "coredis", "taskiq-redis"),
        ],
    ),
    Row(
        "through-pubsub",
        "publish and handle in one process, Pub/Sub",
        "µs",
        on(PUBSUB, partial(workloads.through, count=4_000), *ALL_LIBRARIES),
    ),
    Row(
        "across-stream",
        "publish in one process, handle in another, stream",
        "µs",
        across("across-stream", STREAM, *ALL_LIBRARIES),
        rounds=3,
    ),
    Row(
        "across-pubsub",
        "publish in one process, handle in another, Pub/Sub",
        "µs",
        across("across-pubsub", PUBSUB, *ALL_LIBRARIES),
        rounds=3,
    ),
    Row(
        "latency",
        "from publish to handler at 1,000 events/s, p99",
        "ms",
        [
            *on(STREAM, partial(workloads.latency, seconds=2.0), "jwt_events"),
            *on(
                PUBSUB,
                partial(workloads.latency, seconds=2.0),
                "jwt_events", "redis-py", "FastStream", "valkey-glide",
            ),
            Competitor("jwt_events RevocationList", lambda: workloads.latency(micro.Revocations(), seconds=2.0)),
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
            (Floor(OURS, 1, RAW),) if subscribers == 50 else (),
            weight=3 if subscribers == 50 else 1,
        )
        for subscribers in (1, 10, 50, 200)
    ),
    Row(
        "fleet",
        "publish and wait until 100 lists in 20 processes obey",
        "ms",
        [single(f"jwt_events Fleet(), {figure}", fleet.barrier(figure)) for figure in ("p50", "p99")],
        (Floor("jwt_events Fleet(), p50", maximum=25), Floor("jwt_events Fleet(), p99", maximum=100)),
        rounds=1,
        limit=120.0,
    ),
    Row(
        "check",
        "ask whether a token is revoked",
        "µs",
        [
            single(CHECK, micro.check),
            single(CHECK_CLAIMS, micro.check_claims),
            single(BARE_CHECK, micro.check_bare),
            single(EXISTS, micro.exists),
        ],
        (Floor(CHECK, 1 / 2, BARE_CHECK), Floor(CHECK_CLAIMS, 1 / 3, BARE_CHECK)),
        weight=3,
    ),
    Row(
        "codec",
        "encode or decode one event",
        "µs",
        [
            single(ENCODE, micro.encode_one),
            single(DECODE, micro.decode_one),
            single(VALIDATE, micro.validate_one),
        ],
        (Floor(ENCODE, 1.77, VALIDATE), Floor(DECODE, 1.28, VALIDATE)),
        weight=3,
    ),
    Row(
        "catch-up",
        "catch up with 1,000,000 revocations, a revocation",
        "µs",
        [
            single("RevocationList", micro.catch_up(1_000_000)),
            single("redis-py XREAD COUNT 1000 + validate", micro.read(1_000_000)),
        ],
        (Floor("RevocationList", 1, "redis-py XREAD COUNT 1000 + validate"),),
        rounds=1,
        limit=120.0,
    ),
    Row(
        "memory-rule",
        "memory of a rule, of 1,000,000",
        "bytes",
        [
            single("RevocationList", micro.keep(1_000_000)),
            single("dict[str, float]", micro.keep_bare(1_000_000)),
        ],
        (Floor("RevocationList", maximum=110),),
        rounds=1,
        fresh=True,
        limit=120.0,
    ),
    # asyncio's streams allocate a buffer of 256 KiB for every read of a socket; uvloop and jwt_events reuse one buffer.
    Row(
        "memory-publish-uvloop",
        "memory that a publish needs, on uvloop",
        "bytes",
        [
            *on(STREAM, memory.allocation, *ALL_LIBRARIES),
            *on(PUBSUB, memory.allocation, "jwt_events", "redis-py"),
        ],
        (Floor(OURS, maximum=2_150), Floor("jwt_events Pub/Sub", maximum=2_150)),
        loop="uvloop",
    ),
    Row(
        "memory-publish-asyncio",
        "memory that a publish needs, on asyncio",
        "bytes",
        on(STREAM, memory.allocation, "jwt_events", "redis-py"),
        (Floor(OURS, maximum=2_150),),
        rounds=1,
        loop="asyncio",
    ),
    Row(
        "memory-drain",
        "memory that draining 20,000 events needs at most",
        "MB",
        [
            ours_with(STREAM, lambda client: memory.peak(workloads.drain(client, count=20_000)), ", metrics", metrics),
            *on(
                STREAM,
                lambda client: memory.peak(workloads.drain(client, count=20_000)),
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
        [
            ours_with(STREAM, partial(workloads.processor_time, count=5_000), suffix, options)
            for suffix, options in VARIANTS.items()
        ],
        (Floor(WITH_METRICS, 0.9, OURS), Floor(f"{OURS}, traced 1 % by Tracing(ratio=0.01)", 0.85, OURS)),
        weight=3,
    ),
    Row(
        "import",
        "import",
        "ms",
        [single(name, micro.importing(modules)) for name, modules in IMPORTS.items()],
        (Floor("import jwt_events", 1 / 1.5, "import what it is made of"),),
    ),
    *(
        Row(
            f"size-{size}",
            f"publish and handle with {size / 1_000:g} kB of metadata, stream",
            "µs",
            on(
                STREAM,
                partial(workloads.through, count=2_000, padding=size),
                "jwt_events", "redis-py", "FastStream",
            ),
        )
        for size in (200, 1_000, 4_000, 16_000)
    ),
)  # fmt: skip


def named(row: str) -> Row:
    """Return the row with this id."""
    return next(found for found in ROWS if found.id == row)
