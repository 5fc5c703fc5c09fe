"""Processes of `bench.fanout`: readers, real and simulated, and a publisher with a steady rate.

A process with readers says ``ready``, begins to count when it reads a line, and at the next line tells what it counted.
Each event holds the time when it was published, by a clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from heapq import heappop, heappush
from random import random
from typing import Literal
from urllib.parse import urlsplit

import hiredis

from bench.worker import loop_factory
from jwt_events import RedisStream
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._stream.cursor import CursorReceiver
from jwt_events.transport._stream.pacing import Pacing

KEY = "bench:fanout"

_SIZE = 292  # bytes of an event, as of a revoked token
_KEPT = 20_000  # entries in the stream
_SAMPLED = 2_000  # latencies that a process tells
_STAMP = 20  # digits of the time
_LOOKED_AT = 11  # of so many reads, how old the events of one are is looked at
_AUDIT_INTERVAL = 1.0
_BLOCK_MS = 900

_BEFORE_PAYLOAD = b"$%d\r\n" % _SIZE
_BEFORE_ENTRIES = re.compile(rb"\*1\r\n\*2\r\n\$\d+\r\n%s\r\n\*(\d+)\r\n" % KEY.encode())
_NOTHING = b"*-1\r\n"
_CPU = re.compile(rb"used_cpu_(?:sys|user):([\d.]+)")


class Counts:
    """What the readers of one process have counted."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.wakeups = self.events = 0
        self.latencies: list[int] = []

    def note(self, events: int, stamps: Iterable[bytes]) -> None:
        """Count one read, and how old its events are."""
        now = time.monotonic_ns()
        self.wakeups += 1
        self.events += events
        self.latencies += [now - int(stamp) for stamp in stamps]

    def __str__(self) -> str:
        latencies = sorted(self.latencies)
        found = [latency / 1e6 for latency in latencies[:: max(1, len(latencies) // _SAMPLED)]]
        return json.dumps({"wakeups": self.wakeups, "events": self.events, "latencies": found})


async def read(url: str, count: int, source: Literal["primary", "replica"], *, paced: bool) -> None:
    """Run readers of this library until the standard input ends."""
    counts = Counts()

    async def follow() -> None:
        async with RedisStream(url, KEY, read_from=source).receiver() as receiver:
            assert isinstance(receiver, CursorReceiver)
            receiver.pacing = receiver.pacing if paced else Pacing(0)
            while True:
                if deliveries := (await receiver.receive()).deliveries:
                    sampled = deliveries if counts.wakeups % _LOOKED_AT == 0 else ()
                    counts.note(len(deliveries), [delivery.payload[:_STAMP] for delivery in sampled])

    tasks = [asyncio.create_task(follow()) for _ in range(count)]
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "begin\n":
            counts.clear()
        else:
            _say(str(counts))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class SimulatedReader:
    """A reader that sends what ours sends and looks at next to nothing, so that one process can hold a thousand.

    Args:
        url: the server.
        pacing: when it asks again.
        counts: what it adds to.
    """

    def __init__(self, url: str, pacing: Pacing, counts: Counts) -> None:
        self.socket = _connect(url)
        self._pacing = pacing
        self._counts = counts
        self._unread = b""
        self._cursor = b"$"
        self._audited_at = self._sent_at = time.monotonic()
        self._pacing.restart(self._sent_at)
        self._has_asked = False

    def ask(self) -> None:
        """Send a read, with an audit if that is due."""
        self._sent_at = now = time.monotonic()
        commands: list[Command] = []
        if is_audit := now >= self._audited_at + _AUDIT_INTERVAL - self._pacing.spacing:
            self._audited_at = now
            commands = [("XINFO", "STREAM", KEY), ("INFO", "replication")]
        self._has_asked = self._pacing.must_ask(now, random(), is_audit=is_audit)
        if self._has_asked:
            commands.append(("INFO", "cpu"))
        commands.append(("XREAD", "COUNT", 500, "BLOCK", _BLOCK_MS, "STREAMS", KEY, self._cursor))
        self.socket.send(_packed(*commands))

    def take(self) -> float | None:
        """Read what has arrived; return the seconds until it asks again, if that was all of a reply."""
        with suppress(BlockingIOError):
            self._unread += self.socket.recv(1_048_576)
        found = _BEFORE_ENTRIES.search(self._unread)
        if found is None:
            if not self._unread.endswith(_NOTHING):
                return None
        elif not self._take_entries(self._unread[found.end() :], int(found[1])):
            return None
        if self._has_asked:
            spent = [float(value) for value in _CPU.findall(self._unread)]
            self._pacing.hear(self._sent_at, sum(spent) if spent else None, random())
        self._unread = b""
        return self._pacing.pause(time.monotonic())

    def _take_entries(self, reply: bytes, count: int) -> bool:
        if reply.count(_BEFORE_PAYLOAD) != count:
            return False
        last = reply.rfind(_BEFORE_PAYLOAD)
        if len(reply) != last + len(_BEFORE_PAYLOAD) + _SIZE + 2:
            return False
        self._cursor = reply[max(0, last - 60) : last].split(b"\r\n")[-5]
        self._pacing.wake(time.monotonic(), count)
        stamps = []
        if self._counts.wakeups % _LOOKED_AT == 0:
            stamps = [part[:_STAMP] for part in reply.split(_BEFORE_PAYLOAD)[1:]]
        self._counts.note(count, stamps)
        return True


def simulate(url: str, count: int, *, paced: bool) -> None:
    """Run simulated readers until the standard input ends."""
    counts, selector = Counts(), selectors.DefaultSelector()
    later: list[tuple[float, int]] = []
    readers = [SimulatedReader(url, Pacing() if paced else Pacing(0), counts) for _ in range(count)]
    for number, reader in enumerate(readers):
        reader.socket.setblocking(False)
        selector.register(reader.socket, selectors.EVENT_READ, number)
        reader.ask()
    selector.register(sys.stdin, selectors.EVENT_READ)
    _say("ready")
    while True:
        now = time.monotonic()
        while later and later[0][0] <= now:
            readers[heappop(later)[1]].ask()
        for key, _ in selector.select(max(0.0, later[0][0] - now) if later else None):
            if key.data is None:
                if not (line := sys.stdin.readline()):
                    return
                if line == "begin\n":
                    counts.clear()
                else:
                    _say(str(counts))
            elif pause := readers[key.data].take():
                heappush(later, (time.monotonic() + pause, key.data))
            elif pause is not None:
                readers[key.data].ask()


def publish(url: str, rate: float) -> None:
    """Publish events one by one until killed."""
    server, began, number = _connect(url), time.monotonic(), 0
    _say("ready")
    while True:
        payload = (b"%0*d" % (_STAMP, time.monotonic_ns())).ljust(_SIZE, b"x")
        command = ("XADD", KEY, "MAXLEN", _KEPT, "*", "event", payload)
        server.sendall(_packed(command))
        server.recv(100)
        number += 1
        time.sleep(max(0.0, began + number / rate - time.monotonic()))


def _packed(*commands: Command) -> bytes:
    return b"".join(hiredis.pack_command(one) for one in commands)  # type: ignore[arg-type]  # its stub knows less


def _connect(url: str) -> socket.socket:
    at = urlsplit(url)
    connected = socket.create_connection((at.hostname, at.port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    kind, url, number, paced, source = sys.argv[1:]
    if kind == "publish":
        publish(url, float(number))
    elif kind == "simulate":
        simulate(url, int(number), paced=paced == "paced")
    else:
        with asyncio.Runner(loop_factory=loop_factory("uvloop")) as runner:
            runner.run(read(url, int(number), "replica" if source == "replica" else "primary", paced=paced == "paced"))
