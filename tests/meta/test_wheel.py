"""The wheel, installed into environments of its own: what is in it, and what it says when an extra is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import jwt_events
from jwt_events.embedded import EmbeddedServer
from tests.meta.test_shape import EXTRAS
from tests.support.waiting import scaled

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]

ROUND_TRIP = """
import asyncio, sys
from jwt_events import Publisher, RedisPubSub, RedisStream, RevocationList, Subscriber, TokenRevoked, Verdict

async def main(url):
    for transport in (RedisStream(url, "test:wheel"), RedisPubSub(url, "test:wheel")):
        subscriber, handled = Subscriber(transport), asyncio.Event()

        @subscriber.on(TokenRevoked)
        async def handle(event):
            handled.set()

        async with subscriber, Publisher(transport) as publisher, asyncio.timeout(30):
            await publisher.publish(TokenRevoked(token_id="t"))
            await handled.wait()
    async with RevocationList(RedisStream(url, "test:wheel")) as revocations:
        assert revocations.check({"jti": "t"}) is Verdict.REVOKED

asyncio.run(main(sys.argv[1]))
"""

# By extra, what needs it.
MISSING = {
    "aiohttp": "import jwt_events.aiohttp",
    "embedded": """
import asyncio
from jwt_events.embedded import EmbeddedServer
asyncio.run(EmbeddedServer().__aenter__())
""",
    "fastapi": "import jwt_events.fastapi",
    "keys": """
from jwt_events import SigningKeys
async def fetch(): ...
SigningKeys(fetch)
""",
    "signals": "from jwt_events.signals import SetStream; SetStream('https://id.example')",
    "otlp": "import jwt_events.tracing; jwt_events.tracing.setup('orders')",
}


class Environment:
    """A virtual environment that has nothing but the wheel and what it brings.

    Args:
        path: where to make it.
        wheel: what to install, perhaps with extras in brackets.
    """

    def __init__(self, path: Path, wheel: str) -> None:
        self.bin = path / "bin"
        _run(sys.executable, "-m", "venv", "--without-pip", path)
        _pip("--python", self.bin / "python", "install", wheel)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of it, where no server and no package of the repository can be found."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.bin,
            timeout=scaled(60),
            env={"PATH": "/nowhere", "PYTHONWARNINGS": "error"},
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    directory = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--wheel-dir", directory, ROOT)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def without_extras(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and no extra."""
    return Environment(tmp_path_factory.mktemp("plain"), str(wheel))


@pytest.fixture(scope="module")
def with_cli(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and its command line, and no other extra."""
    return Environment(tmp_path_factory.mktemp("cli"), f"{wheel}[cli]")


def test_content(wheel: Path) -> None:
    """The wheel holds the package, all of it, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "jwt_events").rglob("*.py")}
    assert names == there | {"jwt_events/py.typed"}


def test_importing(without_extras: Environment) -> None:
    """Every name can be imported without an extra, none of which was brought along, and the versions agree."""
    libraries = [name for name in EXTRAS if "." not in name]
    program = f"""
from importlib.metadata import version
from importlib.util import find_spec
from jwt_events import *
import jwt_events
import jwt_events.testing
print(version("jwt_events"), jwt_events.__version__)
print([name for name in {libraries!r} if find_spec(name)])
"""
    done = without_extras.run("python", "-c", program)
    assert (done.stderr, done.stdout.splitlines()) == ("", [f"{jwt_events.__version__} {jwt_events.__version__}", "[]"])


async def test_round_trip(without_extras: Environment, own_server: Callable[[], EmbeddedServer]) -> None:
    """Without extras one can publish, subscribe and ask, on a stream and over Pub/Sub."""
    async with own_server() as server:
        done = without_extras.run("python", "-c", ROUND_TRIP, server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("extra", MISSING)
def test_missing_extra(without_extras: Environment, extra: str) -> None:
    """What needs an extra that is not there says which."""
    done = without_extras.run("python", "-c", MISSING[extra])
    assert done.returncode == 1
    assert f"pip install '.[{extra}]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [("jwt-events", "--help"), ("python", "-m", "jwt_events.cli", "groups")])
def test_no_command_line(without_extras: Environment, command: tuple[str, ...]) -> None:
    """Without its extra the command line says in one line how to get it."""
    done = without_extras.run(*command)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "pip install '.[cli" in line


@pytest.mark.parametrize(("command", "extra"), [("serve", "embedded"), ("demo", "keys")])
def test_command_that_needs_more(with_cli: Environment, command: str, extra: str) -> None:
    """A command that needs another extra says in one line which; the others do without it."""
    assert "Exit codes" in with_cli.run("jwt-events", command, "--help").stdout
    done = with_cli.run("jwt-events", command)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "pip install '.[" in line
    assert extra in line.partition(".[")[2]


async def test_command_line(with_cli: Environment, own_server: Callable[[], EmbeddedServer]) -> None:
    """The command line needs no other extra to publish and to show."""
    async with own_server() as server:
        words = ("--url", server.url, "--json")
        published = with_cli.run("jwt-events", "publish", "token-revoked", "--token-id", "t", *words)
        shown = with_cli.run("jwt-events", "tail", "--start", "all", "--until-current", *words)
    assert (published.returncode, published.stderr, shown.returncode) == (0, "", 0)
    (line,) = shown.stderr.splitlines()
    assert line.startswith("jwt-events: reading the stream")
    assert '"token_id": "t"' in shown.stdout


def _pip(*arguments: str | Path) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170, env=dict(os.environ))
    if done.returncode:
        pytest.fail(f"{command[1:]} failed; is the package registry there?\n{done.stderr}", pytrace=False)
