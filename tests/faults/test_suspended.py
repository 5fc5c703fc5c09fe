"""A machine that was suspended, and a process that was stopped: what a list knew then is no proof when it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from jwt_events import RevocationList, Verdict
from jwt_events._internal.clock import boottime
from jwt_events.revocation import ViewState
from jwt_events.testing import ManualClock
from jwt_events.transport.memory import MemoryTransport
from tests.support.waiting import scaled, wait_until

CLAIMS = {"jti": "good", "iat": 1}


@asynccontextmanager
async def program(url: str, key: str, how: str) -> AsyncIterator[Process]:
    """Run the program that is suspended or stopped."""
    command = (sys.executable, "-m", "tests.faults.suspended_process", url, key, how)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="there is no such clock here")
async def test_suspended(url: str, key: str) -> None:
    """The first check after a sleep is stale; that the machine slept before moves nothing, as all read one clock."""
    async with program(url, key, "suspended") as process, asyncio.timeout(scaled(40)):
        output, _ = await process.communicate()
    found = json.loads(output)
    assert found["verdicts"] == [Verdict.ALLOW, Verdict.STALE, Verdict.ALLOW]
    assert found["acknowledged"] == ["s/i"]
    assert all(0 <= age < scaled(10) for age in found["ages"])
    assert 10 <= found["age"] < 10 + scaled(10)


async def test_stopped(url: str, key: str) -> None:
    """The first check of a process that was stopped for longer than ``max_staleness`` is stale."""
    async with program(url, key, "stopped") as process, asyncio.timeout(scaled(40)):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        until = time.monotonic() + 2.0
        await wait_until(lambda: time.monotonic() > until)
        os.kill(process.pid, signal.SIGCONT)
        found = json.loads(await process.stdout.readline())
    assert found["verdicts"] == [Verdict.STALE, Verdict.ALLOW]


async def test_it_is_noticed() -> None:
    """The state changes soon after waking up, although the timers of event loops have slept as well."""
    clock = ManualClock()
    states: list[ViewState] = []
    async with RevocationList(MemoryTransport(), clock=clock) as revocations:
        revocations.on_state(states.append)
        view = revocations._view
        assert view._staleness_timer is not None
        view._staleness_timer.cancel()
        view.record_proof(boottime() - 10)
        assert revocations.check(CLAIMS) is Verdict.ALLOW  # an older proof takes nothing from a newer one
        clock._now += 6.0  # no timer is run
        view.notice_staleness()
        assert states == [ViewState.STALE]
        assert revocations.check(CLAIMS) is Verdict.STALE
