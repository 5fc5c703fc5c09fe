"""What the README shows and what the examples do, executed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jwt_events import Publisher, RedisStream, SessionDestroyed
from jwt_events.embedded import EmbeddedServer
from tests.support.waiting import scaled

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
HEADINGS = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

OwnServer = Callable[[], EmbeddedServer]


async def _python(*arguments: str | Path, url: str, **environment: str) -> Process:
    env = os.environ | {"JWT_EVENTS_URL": url, "PYTHONWARNINGS": "error"} | environment
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=env, stdout=PIPE, stderr=PIPE)


async def _output(process: Process) -> list[str]:
    async with asyncio.timeout(scaled(30)):
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the blocks that are tested here
@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_readme_block(own_server: OwnServer, number: int) -> None:
    """Every Python block of the README runs, with the address of a server put in, and prints what it says."""
    printed = re.findall(r"print\(.*\)  # (\w+)$", BLOCKS[number], re.MULTILINE)
    async with own_server() as server:
        code = BLOCKS[number].replace("redis://localhost:6379", server.url)
        assert await _output(await _python("-c", code, url=server.url)) == printed


def test_the_first_block_prints() -> None:
    """What one pastes first has something to show."""
    assert BLOCKS[0].count("print(") == 2


@asynccontextmanager
async def _running(example: str, url: str, **environment: str) -> AsyncIterator[Process]:
    """Run an example alongside the test; it is killed if it has not ended by then."""
    process = await _python(ROOT / "examples" / example, url=url, **environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _example(example: str, url: str) -> list[str]:
    """Run an example to its end and return what it prints."""
    return await _output(await _python(ROOT / "examples" / example, url=url))


async def _read(process: Process, until: Callable[[str], bool]) -> str:
    """Read what an example prints until it is enough."""
    assert process.stdout is not None
    heard = ""
    async with asyncio.timeout(scaled(30)):
        while not until(heard):
            line = await process.stdout.readline()
            assert line, f"it ended after {heard!r}"
            heard += line.decode()
    return heard


async def test_examples_publish_and_subscribe(own_server: OwnServer) -> None:
    """The subscriber of the second example hears what the first publishes, and drains on SIGTERM."""
    async with own_server() as server, _running("02_subscribe.py", server.url) as subscriber:
        await _read(subscriber, lambda heard: heard == "listening\n")
        published = await _example("01_publish.py", server.url)
        heard = await _read(subscriber, lambda heard: heard.count("audit:") == 5)  # threads print, maybe on one line
        subscriber.send_signal(signal.SIGTERM)
        rest = await _output(subscriber)
    assert published[1:] == ["key rotated", "3 more published"]
    assert "no longer good: token-1" in heard
    assert "audit: key_rotated from auth-service" in heard
    assert rest[-1] == "handled 5 events"


async def test_example_replay(own_server: OwnServer) -> None:
    """The third example replays all of the stream, then what follows a position."""
    async with own_server() as server:
        output = await _example("03_stream_replay.py", server.url)
    expected = [f"from the beginning: token-{number}" for number in range(5)]
    assert output == [*expected, "after the third: token-3", "after the third: token-4"]


async def test_example_groups(own_server: OwnServer) -> None:
    """In the fourth, two workers share five events, and one that failed is replayed. It can be run again."""
    async with own_server() as server:
        for _ in range(2):
            failure, success = await _example("04_groups.py", server.url)
            assert re.fullmatch(r"given up after 2 attempts: OSError at 04_groups.py:\d+ in mail", failure)
            assert success == "mailed: alice bob carol dave erin"


async def test_example_graceful_shutdown(own_server: OwnServer) -> None:
    """On SIGTERM the ninth finishes what can be finished; what cannot comes back at the next start."""
    sessions = {"quick": 0.2, "slow": 600}
    async with own_server() as server:
        async with Publisher(RedisStream(server.url, key="jwt:events:archive")) as publisher:
            await publisher.publish_many(
                SessionDestroyed(session_id=name, metadata={"seconds": seconds}) for name, seconds in sessions.items()
            )
        async with _running("09_graceful_shutdown.py", server.url, DRAIN_TIMEOUT="1") as process:
            await _read(process, lambda heard: heard.count("begun") == 2)
            process.send_signal(signal.SIGTERM)
            assert await _output(process) == ["finished: quick", "cancelled: slow", "handled 1 and left 1"]
        async with _running("09_graceful_shutdown.py", server.url) as process:
            assert await _read(process, lambda heard: "begun" in heard) == "begun: slow\n"


async def test_example_metrics_and_traces(own_server: OwnServer) -> None:
    """The tenth counts what it does, and its spans lead from the request to the handler."""
    async with own_server() as server:
        output = await _example("10_metrics_and_traces.py", server.url)
    assert set(output) == {
        "jwt_events_published_total token_revoked stream published 1.0",
        "jwt_events_handled_total token_revoked close_cart handled 1.0",
        "POST /logout because of somebody",
        "publish jwt:events:watched because of POST /logout",
        "process jwt:events:watched because of publish jwt:events:watched",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    """An example has fewer than 60 lines and begins with what one learns; the README leads to it."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""Learn to ')
    assert f"(examples/{path.name})" in README


def test_examples_are_in_order() -> None:
    """They are numbered without a gap, and each is run by a test: here, or in a file about what it is about."""
    assert [path.name[:3] for path in EXAMPLES] == [f"{number:02}_" for number in range(1, len(EXAMPLES) + 1)]
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert [path.name for path in EXAMPLES if f'"{path.name}"' not in tests] == []


def test_links_lead_somewhere() -> None:
    """Every link of the README within the repository, and within the page, has a target."""
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in HEADINGS}
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert [link for link in links if link.startswith("#") and link[1:] not in headings] == []
    files = (link.partition("#")[0] for link in links if not link.startswith(("#", "https://", "http://")))
    assert [name for name in files if not (ROOT / name).exists()] == []
