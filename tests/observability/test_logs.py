"""Logs: constant messages, with variable data in bound fields."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from jwt_events import Event, Gap, MemoryTransport, Retry, Subscriber
from tests.support.examples import revoked
from tests.support.handling import Recorder, publish
from tests.support.records import watching
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until

ONCE = Retry(attempts=1)
SECRET = "-".join(["the", "secret", "itself"])  # not in one piece, so that a traceback does not quote it from here


def _raises(subject: Any) -> Any:
    raise KeyError(subject, SECRET)


class TestSilence:
    """The library does not log unless enabled."""

    _PROGRAM = """
import asyncio, sys
from loguru import logger
from jwt_events import *
if sys.argv[1] == "enabled":
    logger.enable("jwt_events")
async def main():
    transport = MemoryTransport()
    subscriber = Subscriber(transport, retry=Retry(attempts=1), drain_timeout=0.01)
    @subscriber.on(TokenRevoked)
    async def fail(event):
        raise ValueError
    @subscriber.on(TokenRevoked)
    async def hang(event):
        await asyncio.Event().wait()
    async with Publisher(transport) as publisher, subscriber:
        await publisher.publish(TokenRevoked(token_id="a"))
        transport.append([b"poison"])
        while not subscriber.stats.decode_errors:
            await asyncio.sleep(0)
asyncio.run(main())
"""

    def _said(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", self._PROGRAM, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def test_silent(self) -> None:
        """A program that does not enable logging is told only what it must not miss."""
        said = self._said("as it is").splitlines()
        assert [line.split(": ")[:2] for line in sorted(said)] == [
            ["jwt_events", "delivery skipped"],
            ["jwt_events", "handler failed"],
        ]

    def test_enabled(self) -> None:
        """One call enables logging."""
        said = self._said("enabled")
        for message in ("subscribed", "handler failed", "handler cancelled", "delivery skipped", "unsubscribed"):
            assert message in said


class TestFields:
    """Messages are constant; variable data is in the fields."""

    async def test_published_and_handled(self) -> None:
        """The id of an event is in its lines, from publish to handling."""
        transport, event = MemoryTransport(), revoked()
        subscriber = Subscriber(transport)
        recorder = Recorder()
        subscriber.on()(recorder)
        with watching() as records:
            async with subscriber:
                await publish(transport, event)
                await wait_until(lambda: subscriber.stats.handled == 1)
        (published,), (handled,) = records.of("event published", "DEBUG"), records.of("handled", "DEBUG")
        common = {"event_id": event.id, "event_type": "token_revoked"}
        assert published == common | {"transport": "memory", "destination": "memory", "position": "1-0"}
        assert handled == common | {"handler": "Recorder", "attempt": 1}

    async def test_lifecycle(self) -> None:
        """Subscribing and unsubscribing are logged at INFO."""
        with watching() as records:
            async with Subscriber(ScriptedTransport()):
                pass
        where = [{"transport": "scripted", "destination": "script"}]
        assert records.of("subscribed", "INFO") == records.of("unsubscribed", "INFO") == where

    async def test_gap(self) -> None:
        """A gap is a warning, with or without a gap handler."""
        transport = ScriptedTransport()
        async with Subscriber(transport) as subscriber:
            with watching() as records:
                transport.deliver(gaps=(Gap("5-0", "trimmed", 7),))
                await wait_until(lambda: subscriber.stats.gaps == 1)
        assert records.of("events may have been missed", "WARNING") == [{"cause": "trimmed", "since": "5-0", "lost": 7}]

    async def test_failed(self) -> None:
        """A failed handler is logged with its name, attempt, and the error's class and place, without its message."""
        transport, event = MemoryTransport(), revoked()
        subscriber = Subscriber(transport, retry=Retry(attempts=2, initial=0.001))

        @subscriber.on()
        async def fail(event: Event) -> None:
            raise LookupError(SECRET)

        with watching(SECRET) as records:
            async with subscriber:
                await publish(transport, event)
                await wait_until(lambda: subscriber.stats.failed == 1)
        (first,) = records.of("handler failed and will be called again", "WARNING")
        (last,) = records.of("handler failed", "ERROR")
        assert (first["attempt"], last["attempt"]) == (1, 2)
        assert last["handler"].endswith("fail")
        assert last["event_id"] == event.id
        assert last["error"].startswith("LookupError at test_logs.py:")

    async def test_failing_gap_handler(self) -> None:
        """A failed gap handler is logged with its name and the gap."""
        transport = ScriptedTransport()
        subscriber = Subscriber(transport, retry=ONCE)
        subscriber.on_gap(_raises)
        with watching() as records:
            async with subscriber:
                transport.deliver(gaps=(Gap(None, "reconnected"),))
                await wait_until(lambda: records.of("handler failed", "ERROR"))
        (fields,) = records.of("handler failed")
        assert fields.items() >= {"cause": "reconnected", "since": None, "attempt": 1}.items()

    async def test_skipped(self) -> None:
        """An invalid message is logged as an error with reason, place and size; a duplicate at DEBUG."""
        transport, event = MemoryTransport(), revoked()
        with watching() as records:
            async with Subscriber(transport) as subscriber:
                subscriber.on()(Recorder())
                await publish(transport, event, event)
                transport.append([b"poison"])
                await wait_until(lambda: subscriber.stats.decode_errors == 1)
        (skipped,) = records.of("delivery skipped: not an event", "ERROR")
        assert skipped.items() >= {"reason": "not_json", "position": "3-0", "size": 6}.items()
        assert records.of("duplicate skipped", "DEBUG") == [{"event_id": event.id, "position": "2-0"}]

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), BaseException()])
    async def test_odd_failures_of_ordered_by(self, error: BaseException) -> None:
        """Whatever it raises, the event is handled."""

        def fail(_: Event) -> str:
            raise error

        transport, recorder = MemoryTransport(), Recorder()
        subscriber = Subscriber(transport, ordered_by=fail)
        subscriber.on()(recorder)
        async with subscriber:
            for user_id in ("u", "v"):
                await publish(transport, revoked(user_id=user_id))
            await recorder.has_seen(2)
            assert subscriber.state == "live"

    async def test_failing_ordered_by(self) -> None:
        """A failed ordered_by function is logged with the error, without the event's content."""
        transport, event = MemoryTransport(), revoked(user_id=SECRET)
        subscriber, recorder = Subscriber(transport, ordered_by=_raises), Recorder()
        subscriber.on()(recorder)
        with watching(SECRET, "token-1") as records:
            async with subscriber:
                await publish(transport, event)
                await recorder.has_seen(1)
        (fields,) = records.of("ordered_by failed, the event is handled out of order", "ERROR")
        assert fields["event_id"] == event.id
        assert fields["error"].startswith("KeyError at test_logs.py:")
