"""A process that is forked while connections are open: the child has none of them, and the parent goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from jwt_events import MemoryTransport, Publisher, TokenRevoked, TransportError, WrongLoop
from jwt_events.transport._redis import forked
from jwt_events.transport.connection import Connector
from tests.support.waiting import scaled


@pytest.mark.parametrize("how", ["exit", "raise", "publish"])
def test_parent_goes_on(url: str, key: str, how: str) -> None:
    """However a child ends, no consumer or instance of its parent is removed, and nothing is lost or sent for it."""
    program = [sys.executable, "-m", "tests.faults.forking_process", url, key, how]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert ran.returncode == 0, ran.stderr
    (told,) = ran.stdout.splitlines()
    assert json.loads(told) == {"different": [], "seen": [2, 2, 2], "gaps": [], "revoked": True}


async def test_child_of_a_loop_with_connections(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child, the loop opens no connections, and what was opened before says so."""
    monkeypatch.setattr(forked, "_loops", {asyncio.get_running_loop()})
    with pytest.raises(TransportError, match="in the child, use an event loop of its own") as refused:
        await Connector(url).connect(within=scaled(5))
    assert not refused.value.retryable


async def test_opened_before() -> None:
    """What was opened before the fork raises a typed error in the child."""
    async with Publisher(MemoryTransport()) as publisher:
        await publisher.publish(TokenRevoked(token_id="t"))
        own = publisher._loop
        thread = own._thread
        own.leave_to_parent()
        with pytest.raises(WrongLoop, match="before this process was forked"):
            await publisher.publish(TokenRevoked(token_id="t"))
        own._thread = thread
