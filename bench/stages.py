"""Where the time of one event goes: the same events through one layer more each time.

``python -m bench.stages [--events N] [--rounds N] [--json]`` prints the processor time of this process per event, the
least of the rounds, and what the layer itself adds to the one below it. The server is the embedded one, over TCP.
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
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.multiplexer import Multiplexer

TASKS = 200
PAGE = 1_000

Work = Callable[[], Awaitable[Any]]


async def from_tasks(items: Sequence[Any], each: Callable[[Any], Awaitable[Any]]) -> None:
    """Do something with all items, from many tasks at once."""
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            await each(item)

    await asyncio.gather(*(work() for _ in range(TASKS)))


class Stages:
    """The layers, from the bottom up, each as a way to move all events through it.

    Args:
        url: the server.
        events: what to move.
    """

    def __init__(self, url: str, events: Sequence[Event]) -> None:
        self._url = url
        self._events = events
        self._payloads = [encode(Envelope(event), source="bench") for event in events]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._wire = await Connector(self._url).connect(within=5)
        self._stack.push_async_callback(self._wire.aclose)
        self._pipeline = await self._stack.enter_async_context(Multiplexer(Connector(self._url)))
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

    def sending(self) -> dict[str, Work]:
        """From 200 tasks, one event a call."""

        async def wire(payload: bytes) -> None:
            await self._wire.send([(b"XADD", b"wire", b"*", b"event", payload)]).settled

        async def pipeline(payload: bytes) -> None:
            await self._pipeline.run([(b"XADD", b"pipeline", b"*", b"event", payload)], within=5)

        async def sender(payload: bytes) -> None:
            await self._sender.send([payload], within=5)

        return {
            "wire: pack, write, read, wake the task": lambda: from_tasks(self._payloads, wire),
            "pipeline: deadlines, room, order": lambda: from_tasks(self._payloads, pipeline),
            "sender: one command, one answer": lambda: from_tasks(self._payloads, sender),
            "publisher: check, encode, retry, receipt": lambda: from_tasks(self._events, self._publisher.publish),
            "metrics": lambda: from_tasks(self._events, self._metered.publish),
        }

    def many(self) -> dict[str, Work]:
        """By `Publisher.publish_many`, 1,000 events a call."""

        async def publish_many() -> None:
            for start in range(0, len(self._events), PAGE):
                await self._publisher.publish_many(self._events[start : start + PAGE])

        return {"all of it": publish_many}

    def receiving(self) -> dict[str, Work]:
        """From a stream into a handler that does not wait."""

        async def receive(*, decoding: bool) -> None:
            left = len(self._events)
            async with RedisStream(self._url, "wire").receiver(from_oldest=True) as receiver:
                while left > 0:
                    page = await receiver.receive()
                    left -= len(page.deliveries)
                    if decoding:
                        for delivery in page.deliveries:
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
            "receiver: read pages, prove that none is missing": lambda: receive(decoding=False),
            "decode and validate": lambda: receive(decoding=True),
            "subscriber: duplicates, handlers, settling": handle,
            "metrics": lambda: handle(metrics=Metrics(CollectorRegistry())),
        }


async def measure(number: int, rounds: int) -> list[dict[str, Any]]:
    """Run every stage so many times, and return what each took."""
    events = [TokenRevoked(token_id=f"token-{index}", user_id="user") for index in range(number)]
    found: dict[tuple[str, str], float] = {}
    async with EmbeddedServer(port=0) as server, Stages(server.url, events) as stages:
        ways = {"publish": stages.sending(), "publish_many": stages.many(), "subscribe": stages.receiving()}
        for _ in range(rounds):
            for way, works in ways.items():
                for name, work in works.items():
                    gc.collect()
                    began = time.process_time()
                    await work()
                    took = (time.process_time() - began) / number * 1e6
                    found[way, name] = min(took, found.get((way, name), took))
    rows, before = [], ("", 0.0)
    for (way, name), took in found.items():
        adds = took - before[1] if way == before[0] else took
        rows.append({"way": way, "stage": name, "adds_us": round(adds, 2), "in_all_us": round(took, 2)})
        before = (way, took)
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.events, arguments.rounds))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print("| | stage | adds, µs | in all, µs |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['way']} | {row['stage']} | {row['adds_us']:.1f} | {row['in_all_us']:.1f} |")


if __name__ == "__main__":
    main()
