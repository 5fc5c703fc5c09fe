"""A program on a machine that was suspended, or that is stopped itself; prints what it finds, as JSON.

Usage: ``python -m tests.faults.suspended_process URL KEY suspended|stopped``

A machine cannot be suspended in a test. What a program sees of it is that one clock went on and the other stood still:
``suspended`` lets the clock that goes on jump. With ``stopped`` it is to be stopped by SIGSTOP, once it said "ready".
"""

from __future__ import annotations

import json
import sys
import time

_SLEPT_BEFORE, _SLEEPS = 1_000.0, 10.0
_LEASE = 1.0

slept = _SLEPT_BEFORE
_read = time.clock_gettime


def _clock_gettime(clock: int) -> float:
    return _read(clock) + (slept if clock == time.CLOCK_BOOTTIME else 0.0)


if sys.argv[-1] == "suspended":
    time.clock_gettime = _clock_gettime  # before the library is imported, which keeps the function

import asyncio  # noqa: E402 - see above
from threading import Thread  # noqa: E402 - see above

import jwt_events  # noqa: E402 - see above
from jwt_events import RedisStream, RevocationList, Verdict  # noqa: E402 - see above
from jwt_events.revocation import ViewState  # noqa: E402 - see above

CLAIMS = {"jti": "good", "iat": 1}


async def _fresh(revocations: RevocationList) -> None:
    async with asyncio.timeout(60):
        while not revocations.is_fresh:  # noqa: ASYNC110 - a program of its own, which nothing wakes
            await asyncio.sleep(0.01)


async def suspended(url: str, key: str) -> dict[str, object]:
    """Wake up from ten seconds of sleep; the machine had slept before, too."""
    global slept  # noqa: PLW0603 - it is the clock
    transport, states = RedisStream(url, key), list[ViewState]()
    revocations = RevocationList(transport, max_staleness=5.0, service="s", instance="i")
    revocations.on_state(states.append)
    async with (
        revocations,
        jwt_events.Publisher(transport) as publisher,
        jwt_events.Subscriber(transport) as subscriber,
    ):
        before = revocations.check(CLAIMS)
        receipt = await publisher.publish(
            jwt_events.TokenRevoked(token_id="t"), in_force=jwt_events.Fleet("s", timeout=20)
        )
        ages = revocations.staleness, subscriber.staleness
        slept += _SLEEPS
        after, age = revocations.check(CLAIMS), revocations.staleness
        await _fresh(revocations)
        return {
            "verdicts": [before, after, revocations.check(CLAIMS)],
            "acknowledged": receipt.propagation is not None and list(receipt.propagation.acknowledged),
            "ages": ages,
            "age": age,
        }


async def stopped(url: str, key: str) -> dict[str, object]:
    """Check without a pause, and tell the first verdict after a pause that others made."""
    async with RevocationList(RedisStream(url, key), max_staleness=_LEASE) as revocations:
        await _fresh(revocations)
        found: list[Verdict] = []

        def check() -> None:
            last = time.monotonic()
            while not found:
                before = time.monotonic()
                verdict = revocations.check(CLAIMS)
                if before - last > _LEASE:
                    found.append(verdict)
                last = before

        thread = Thread(target=check)
        thread.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(thread.join)
        await _fresh(revocations)
        return {"verdicts": [*found, revocations.check(CLAIMS)]}


if __name__ == "__main__":
    run = suspended if sys.argv[-1] == "suspended" else stopped
    sys.stdout.write(json.dumps(asyncio.run(run(*sys.argv[1:3]))) + "\n")
