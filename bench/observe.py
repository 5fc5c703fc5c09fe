"""What watching costs: end-to-end throughput with metrics and traces on and off, in one run, taken in turns.

``python -m bench.observe [--events N] [--rounds N] [--by many|tasks] [--json]``

Publisher, embedded server and subscriber on one machine; the first two columns are of this machine and this moment, the
ratios are what counts. A round runs every variant once, in an order of its own, and the ratio is the median over the
rounds of "CPU time of this process per event, against nothing in the same round".
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from prometheus_client import CollectorRegistry

from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.metrics import Metrics
from jwt_events.spans import Spans
from jwt_events.tracing import Tracing

BATCH = 500
TASKS = 64


@dataclass
class Variant:
    """A way to watch.

    Attributes:
        name: for the table.
        most: the largest ratio that is promised.
        options: makes what publisher and subscriber are given.
        patched: whether tracing is cut out, as if it had never been written.
    """

    name: str
    most: float | None
    options: Callable[[], dict[str, Any]]
    patched: bool = False
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


class _Discard(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _sampled(ratio: float) -> TracerProvider:
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))
    provider.add_span_processor(BatchSpanProcessor(_Discard()))
    return provider


def variants() -> list[Variant]:
    """Return what is compared; the first is the measure of all."""
    provider, everything = _sampled(0.01), _sampled(1.0)
    return [
        Variant("nothing", None, dict, patched=True),
        Variant("tracing, no SDK", 1.05, dict),
        Variant("metrics", 1.10, lambda: {"metrics": Metrics(CollectorRegistry())}, patched=True),
        Variant("tracing, 1 % by ratio", 1.15, lambda: {"tracer_provider": Tracing(everything, ratio=0.01)}),
        Variant("tracing, 1 % by SDK", None, lambda: {"tracer_provider": provider}),
    ]


async def once(url: str, key: str, variant: Variant, number: int, *, by: str) -> None:
    """Publish and handle so many events, and take the time."""
    transport = RedisStream(url, key)
    options = variant.options()
    subscriber, left, done = Subscriber(transport, **options), number, asyncio.Event()

    @subscriber.on(TokenRevoked)
    async def handle(event: TokenRevoked) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    events = [TokenRevoked(token_id=f"token-{index}", user_id="user") for index in range(number)]
    async with subscriber, Publisher(transport, **options) as publisher:
        gc.collect()
        gc.freeze()  # a service does not hold all its events at once: their number must not burden the collector
        began, cpu = time.perf_counter(), time.process_time()
        if by == "many":
            for start in range(0, number, BATCH):
                await publisher.publish_many(events[start : start + BATCH])
        else:
            waiting = iter(events)

            async def publish() -> None:
                for event in waiting:
                    await publisher.publish(event)

            await asyncio.gather(*(publish() for _ in range(TASKS)))
        await done.wait()
        gc.unfreeze()
        variant.cpu.append((time.process_time() - cpu) / number)
        variant.wall.append((time.perf_counter() - began) / number)


async def measure(number: int, rounds: int, by: str) -> list[Variant]:
    """Run all variants in turns; the first round only warms up."""
    compared = variants()
    async with EmbeddedServer() as server:
        for turn in range(rounds + 1):
            for variant in random.sample(compared, len(compared)):
                with ExitStack() as stack:
                    if variant.patched:
                        stack.enter_context(patch.object(Spans, "publishing", lambda *_: None))
                        stack.enter_context(patch.object(Spans, "processing", lambda *_: None))
                    await once(server.url, f"{variant.name}:{turn}", variant, number, by=by)
    for variant in compared:
        del variant.cpu[0], variant.wall[0]
    return compared


def ratio(of: list[float], to: list[float]) -> float:
    """Return the median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--by", choices=["many", "tasks"], default="many")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = asyncio.run(measure(arguments.events, arguments.rounds, arguments.by))
    nothing = measured[0]
    rows = [
        {
            "variant": variant.name,
            "per second": round(1 / statistics.median(variant.wall)),
            "cpu us per event": round(statistics.median(variant.cpu) * 1e6, 1),
            "cpu ratio": round(ratio(variant.cpu, nothing.cpu), 3),
            "wall ratio": round(ratio(variant.wall, nothing.wall), 3),
            "promised": variant.most,
        }
        for variant in measured
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in [{name: name for name in rows[0]}, *rows]:
        print("".join(f"{value or '':>{22 if name == 'variant' else 18}}" for name, value in row.items()))


if __name__ == "__main__":
    main()
