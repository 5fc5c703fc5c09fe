"""What the README shows and what the examples do, executed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

import pytest

from jwt_events.embedded import EmbeddedServer
from tests.support.waiting import scaled

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

OwnServer = Callable[[], EmbeddedServer]


async def _python(*arguments: str | Path, url: str) -> Process:
    environment = os.environ | {"JWT_EVENTS_URL": url, "PYTHONWARNINGS": "error"}
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stdout=PIPE, stderr=PIPE)


async def _output(process: Process) -> list[str]:
    async with asyncio.timeout(scaled(30)):
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_readme_block(own_server: OwnServer, number: int) -> None:
    """Every Python block of the README runs as it stands, but for the address of the server."""
    async with own_server() as server:
        code = BLOCKS[number].replace("redis://localhost:6379", server.url)
        output = await _output(await _python("-c", code, url=server.url))
    assert output == (["no longer good: the token's jti"] if 'print("no longer good' in code else [])


async def test_examples_publish_and_subscribe(own_server: OwnServer) -> None:
    """The subscriber of the second example hears what the first publishes, and drains on SIGTERM."""
    async with own_server() as server:
        subscriber = await _python(EXAMPLES[1], url=server.url)
        assert subscriber.stdout is not None
        async with asyncio.timeout(scaled(30)):
            assert await subscriber.stdout.readline() == b"listening\n"
        published = await _output(await _python(EXAMPLES[0], url=server.url))
        heard = ""
        async with asyncio.timeout(scaled(30)):
            while heard.count("audit:") < 5:  # printed by threads, so two lines may become one
                heard += (await subscriber.stdout.readline()).decode()
        subscriber.send_signal(signal.SIGTERM)
        rest = await _output(subscriber)
    assert published[1:] == ["key rotated", "3 more published"]
    assert "no longer good: token-1" in heard
    assert "audit: key_rotated from auth-service" in heard
    assert rest[-1] == "handled 5 events"


async def test_example_replay(own_server: OwnServer) -> None:
    """The third example replays all of the stream, then what follows a position."""
    async with own_server() as server:
        output = await _output(await _python(EXAMPLES[2], url=server.url))
    expected = [f"from the beginning: token-{number}" for number in range(5)]
    assert output == [*expected, "after the third: token-3", "after the third: token-4"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    """An example has fewer than 60 lines and begins with what one learns."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""Learn to ')
