"""The examples about signals, each run as its own process."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer
from tests.support.waiting import scaled

EXAMPLES = Path(__file__).parents[2] / "examples"
PRINTED = {
    "12_backchannel_logout.py": [
        "before: ALLOW",
        "logout token: 200",
        "after: REVOKED",
        "forged: 400 the signature is not valid",
    ],
    "13_shared_signals.py": [
        "disabled: 202 {}",
        "risk: 202 {}",
        "stranger: 400 {'err': 'invalid_request', 'description': 'the subject is unknown here'}",
        "verification: 202 {}",
        "carol is out",
        "alice is out",
    ],
    "15_poll_signals.py": [
        "states: polling standby",
        "alice is out, and it is acknowledged",
        "paused: 503",
    ],
}


@pytest.mark.parametrize("example", PRINTED)
async def test_example(own_server: Callable[[], EmbeddedServer], example: str) -> None:
    """It prints what each signal did, and ends without an error; it can be run again."""
    async with own_server() as server:
        for _ in range(2):
            environment = os.environ | {"JWT_EVENTS_URL": server.url, "PORT": str(free_port())}
            process = await asyncio.create_subprocess_exec(
                sys.executable, EXAMPLES / example, env=environment, stdout=PIPE, stderr=PIPE
            )
            async with asyncio.timeout(scaled(30)):
                output, errors = await process.communicate()
            assert (process.returncode, errors.decode()) == (0, "")
            assert output.decode().splitlines() == PRINTED[example]
