"""The cost of each layer: the same events pass through one layer more each time.

``python -m bench.layers [--events N] [--rounds N] [--json]`` prints the processor time of this process per event, the
minimum of the rounds, and what the layer itself adds to the one below it. The server is the embedded one, over TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from prometheus_client import CollectorRegistry

from jwt_events import Event, Publisher, RedisStream, Subscriber, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, decode, encode
from jwt_events.metrics import Metrics
from jwt_events.transport._redis.commands import CommandTemplate
from jwt_events.transport._redis.connection import Connector

TASKS = 200
BATCH_SIZE = 1_000

Workload = Callable[[], Awaitable[Any]]


async def from_tasks(items: Sequence[Any], each: Callable[[Any], Awaitable[Any]]) -> None:
    """Call a function with all items, from many tasks at once."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await each(item)

    await asyncio.gather(*(worker() for _ in range(TASKS)))


class Layers:
    """The layers, from the bottom up, each as a workload that passes all events through it.

    Args:
        url: the server.
        events: the events to pass.
    """

    def __init__(self, url: str, events: Sequence[Event]) -> None:
        self._url = url
        self._events = events
        self._payloads = [encode(Envelope(event), source="bench") for event in events]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._connection = await Connector(self._url).connect(within=5)
        self._stack.push_async_callback(self._connection.aclose)
        self._sender = await self._stack.enter_async_context(RedisStream(self._url, "sender").sender())
        self._publisher = await self._stack.enter_async_context(Publisher(RedisStream(self._url, "publisher")))
        self._metered = await self._stack.enter_async_context(
            Publisher(RedisStream(self._url, "metered"), metrics=Metrics(CollectorRegistry()))
        )
        for publisher in (self._publisher, self._metered):
            await publisher.publish(self._events[0])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def sending(self) -> dict[str, Workload]:
        """Return the layers of `Publisher.publish`, from 200 tasks."""
        adding = CommandTemplate(b"XADD", b"connection", b"*", b"event")

        async def connection(payload: bytes) -> None:
            await self._connection.send(adding.fill([payload])).settled

        async def sender(payload: bytes) -> None:
            await self._sender.send([payload], within=5)

        return {
            "connection: pack, write, read, wake the task": lambda: from_tasks(self._payloads, connection),
            "sender: deadlines, capacity, order, one reply": lambda: from_tasks(self._payloads, sender),
            "publisher: check, encode, retry, receipt": lambda: from_tasks(self._events, self._publisher.publish),
            "metrics": lambda: from_tasks(self._events, self._metered.publish),
        }

    def many(self) -> dict[str, Workload]:
        """Return `Publisher.publish_many`, with 1,000 events a call."""

        async def publish_many() -> None:
            for start in range(0, len(self._events), BATCH_SIZE):
                await self._publisher.publish_many(self._events[start : start + BATCH_SIZE])

        return {"all layers": publish_many}

    def receiving(self) -> dict[str, Workload]:
        """Return the layers from a stream into a handler that does not wait."""

        async def receive(*, decoding: bool) -> None:
            left = len(self._events)
            async with RedisStream(self._url, "connection").receiver(from_oldest=True) as receiver:
                while left > 0:
                    batch = await receiver.receive()
                    left -= len(batch.deliveries)
                    if decoding:
                        for delivery in batch.deliveries:
                            decode(delivery.payload)

        async def handle(**options: Any) -> None:
            left, done = len(self._events), asyncio.Event()
            subscriber = Subscriber(RedisStream(self._url, "publisher", start="all"), **options)

            @subscriber.on(TokenRevoked)
            async def count(event: TokenRevoked) -> None:
                nonlocal left
                left -= 1
                if not left:
                    done.set()

            async with subscriber:
                await done.wait()

        return {
            "receiver: read batches, prove that none is missing": lambda: receive(decoding=False),
            "decode and validate": lambda: receive(decoding=True),
            "subscriber: duplicates, handlers, settling": handle,
            "metrics": lambda: handle(metrics=Metrics(CollectorRegistry())),
        }


async def measure(count: int, rounds: int) -> list[dict[str, Any]]:
    """Run every layer `rounds` times; return the minimum of each."""
    events = [TokenRevoked(token_id=f"token-{index}", user_id="user") for index in range(count)]
    found: dict[tuple[str, str], float] = {}
    async with EmbeddedServer(port=0) as server, Layers(server.url, events) as layers:
        operations = {"publish": layers.sending(), "publish_many": layers.many(), "subscribe": layers.receiving()}
        for _ in range(rounds):
            for operation, workloads in operations.items():
                for name, workload in workloads.items():
                    gc.collect()
                    began = time.process_time()
                    await workload()
                    took = (time.process_time() - began) / count * 1e6
                    found[operation, name] = min(took, found.get((operation, name), took))
    rows, before = [], ("", 0.0)
    for (operation, name), took in found.items():
        adds = took - before[1] if operation == before[0] else took
        rows.append({"operation": operation, "layer": name, "adds_us": round(adds, 2), "in_all_us": round(took, 2)})
        before = (operation, took)
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.events, arguments.rounds))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print("| | layer | adds, µs | in all, µs |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['operation']} | {row['layer']} | {row['adds_us']:.1f} | {row['in_all_us']:.1f} |")


if __name__ == "__main__":
    main()
