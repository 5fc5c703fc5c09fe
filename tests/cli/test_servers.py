"""Every command that needs a server, on servers that are empty, not there, loading, or refuse the user."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bench.ports import free_port
from jwt_events.cli import app
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis import reconnecting
from tests.support.commands import Outcome, pipe, run, run_apart, running
from tests.support.fake_server import FakeServer
from tests.support.servers import OWN_KINDS, Server, shared
from tests.support.waiting import scaled

PASSWORD = "correct-horse-battery"
FILE = "events.jsonl"
EVENT = '{"type": "token_expired", "token_id": "t"}\n'
CLAIMS = '{"jti": "token-1"}'

SOON = ("--timeout", str(scaled(1.5)))
PUBSUB = ("--transport", "pubsub")


@dataclass(frozen=True)
class Case:
    """A command that needs a server.

    Attributes:
        words: the command and the arguments that it needs to end by itself.
        empty: its exit code on an empty server.
        says: what it prints there.
        refused: what it prints to a user without rights.
    """

    words: tuple[str, ...]
    empty: int
    says: str
    refused: str = "NOPERM"

    def __str__(self) -> str:
        return " ".join(self.words)


TABLE = [
    Case(("publish", "token-revoked", "--token-id", "t", *SOON), 0, "published event_id="),
    Case(("publish", "token-expired", "--token-id", "t", *SOON), 0, "published event_id="),
    Case(("publish", "key-rotated", "--key-id", "k", *SOON), 0, "published event_id="),
    Case(("publish", "session-created", "--session-id", "s", "--user-id", "u", *SOON), 0, "published event_id="),
    Case(("publish", "session-destroyed", "--session-id", "s", *SOON), 0, "published event_id="),
    Case(("publish", "session-destroyed", "--session-id", "s", *SOON, *PUBSUB), 0, "published event_id="),
    Case(("publish", "--file", FILE, *SOON), 0, "published=1 next_line=2"),
    Case(("tail", "--until-current"), 0, ""),
    Case(("check",), 0, "there is no stream 'jwt:events' yet, so nothing is revoked"),
    Case(("groups",), 0, "there is no stream 'jwt:events' yet; it comes with the first event"),
    Case(
        ("doctor",),
        1,
        "'jwt:events' holds nothing, and never did",
        refused="rights: publisher\tthis user lacks XADD, XTRIM, TIME",
    ),
    Case(("doctor", *PUBSUB), 0, "7 ok, 1 note", refused="rights: publisher\tthis user may not ask"),
    Case(("bench", "--seconds", "0.3"), 0, "publish one by one"),
    Case(("demo", "--json", "--events", "3", "--revocations", "0"), 0, '"lost": 0'),
    Case(("fleet",), 0, "no instance has announced itself beside 'jwt:events'"),
    Case(("ledger",), 1, "jwt:events:ledger is not there"),
    Case(("ledger", "fold"), 2, "no publisher has told how long it keeps events"),
    Case(("ledger", "remove", "--user-id", "u", "--reason", "r"), 1, "there is no such rule in the ledger"),
    Case(("dead", "list"), 0, "there are no dead letters"),
    Case(("dead", "take-over"), 0, "taken_over=0"),
    Case(("dead", "show", "1-1"), 1, "no such dead letter: 1-1"),
    Case(("dead", "replay", "--all"), 0, "there are no dead letters"),
    Case(("dead", "purge", "--all", "--yes"), 0, "there are no dead letters"),
]
EVERY = pytest.mark.parametrize("case", TABLE, ids=str)


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands that wait for a server give up soon."""
    monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(0.3))


@pytest.fixture(scope="module", params=OWN_KINDS)
def _own(request: pytest.FixtureRequest) -> Iterator[Server]:
    with shared(request.param) as server:
        server.inspector.execute_command("ACL", "SETUSER", "guest", "on", f">{PASSWORD}")  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        yield server


@pytest.fixture
def own(_own: Server) -> Server:
    """An empty server that only these tests use, with a user who has no rights."""
    _own.inspector.flushall()
    return _own


@contextmanager
def loading() -> Iterator[str]:
    """Run a server that is loading, in a thread; yield its URL."""
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with FakeServer(lambda _: b"-LOADING Redis is loading the dataset in memory\r\n") as server:
            over = asyncio.Event()
            ready.set_result((server.url, asyncio.get_running_loop(), over))
            await over.wait()

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        url, loop, over = ready.result(scaled(10))
        yield url
        loop.call_soon_threadsafe(over.set)
        serving.result(scaled(10))


def run_case(case: Case, url: str, path: Path) -> Outcome:
    """Run the command, from a directory that contains a file with an event."""
    file = path / FILE
    file.write_text(EVENT)
    words = [str(file) if word == FILE else word for word in case.words]
    if words[0] == "demo":  # which ignores JWT_EVENTS_URL
        words += ["--url", url]
    told = run(*words, url=url, given=CLAIMS)
    assert PASSWORD not in told.output + told.errors
    return told


def _blamed(case: Case) -> str:
    """Return what the URL of a case is taken from, which errors about it must name."""
    return "--url" if case.words[0] == "demo" else "JWT_EVENTS_URL"


@pytest.mark.parametrize("before", [True, False])
def test_option_takes_precedence(*, before: bool) -> None:
    """An error about a URL that was given as an option does not blame the environment."""
    option = ("--url", "http://localhost")
    told = run(*option, "groups", url="redis://") if before else run("groups", *option, url="redis://")
    assert told.complaint.startswith("jwt-events: --url: ")
    assert run("groups", url="http://localhost").complaint.startswith("jwt-events: JWT_EVENTS_URL: ")


def test_example_is_shown(own_server: Callable[..., EmbeddedServer]) -> None:
    """Advice shows its example whole; a password is never shown."""

    async def ask() -> Outcome:
        async with own_server(config={"requirepass": PASSWORD}) as server:
            url = server.url.replace(f":{PASSWORD}@", "")
            assert PASSWORD not in url
            return await asyncio.to_thread(run_apart, "groups", url=url)

    told = asyncio.run(ask())
    assert told.code == 2
    assert told.complaint.endswith("Put the user and password into JWT_EVENTS_URL: redis://user:password@host:6379.")


def test_refused_key_is_named(own: Server) -> None:
    """A user who may not access one of the keys is told which."""
    words = ("ACL", "SETUSER", "u", "reset", "on", f">{PASSWORD}", "~k", "+@all")
    own.inspector.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
    url = own.url.replace("://", f"://u:{PASSWORD}@")
    assert " for 'k:dead' refused: NOPERM" in run("dead", "list", "--key", "k", url=url).complaint
    assert " for 'other' refused: NOPERM" in run("groups", "--key", "other", url=url).complaint


def test_table_is_complete() -> None:
    """The table has every command but the one that is a server itself, and those that ask a transmitter of signals."""

    def commands(group: Any, *names: str) -> Iterator[tuple[str, ...]]:
        for name in group.list_commands(None):
            command = group.get_command(None, name)
            if hasattr(command, "commands"):
                yield from commands(command, *names, name)
            else:
                yield (*names, name)

    there = {words for words in commands(get_command(app)) if words[0] not in ("serve", "signals")}
    tested = {case.words[: len(words)] for case in TABLE for words in there if case.words[: len(words)] == words}
    assert tested == there


@EVERY
def test_empty(own: Server, case: Case, tmp_path: Path) -> None:
    """On an empty server it succeeds, or says that there is nothing."""
    told = run_case(case, own.url, tmp_path)
    assert told.code == case.empty
    assert case.says in told.output + told.errors


@EVERY
def test_unreachable(case: Case, tmp_path: Path) -> None:
    """Without a server, one line has its address and advice."""
    port = free_port()
    told = run_case(case, f"redis://user:{PASSWORD}@localhost:{port}", tmp_path)
    assert told.code == 2
    assert f"localhost:{port}" in told.complaint
    assert "Is a server running there?" in told.complaint
    assert ("JWT_EVENTS_URL says so" in told.complaint) == (_blamed(case) == "JWT_EVENTS_URL")


@EVERY
@pytest.mark.parametrize("url", ["http://u:{}@localhost", "redis://u:{}@localhost:port", "redis://u:{}@[::1"])
def test_malformed_url(case: Case, url: str, tmp_path: Path) -> None:
    """A malformed URL is refused, and its password not shown."""
    told = run_case(case, url.format(PASSWORD), tmp_path)
    assert told.code == 2
    assert f"{_blamed(case)}: " in told.complaint


@EVERY
def test_loading(case: Case, tmp_path: Path) -> None:
    """While a server is loading, one line says so and has advice."""
    with loading() as url:
        told = run_case(case, url, tmp_path)
    assert told.code == 2
    assert "LOADING" in told.complaint
    assert "try again in a moment" in told.complaint


@EVERY
def test_wrong_password(own: Server, case: Case, tmp_path: Path) -> None:
    """With a wrong password, one line says so."""
    told = run_case(case, own.url.replace("://", f"://stranger:{PASSWORD}@"), tmp_path)
    assert told.code == 2
    assert "WRONGPASS" in told.complaint
    named = {"--url": "the URL", "JWT_EVENTS_URL": "JWT_EVENTS_URL"}[_blamed(case)]
    assert f"Are the user and password in {named} right?" in told.complaint


@EVERY
def test_without_rights(own: Server, case: Case, tmp_path: Path) -> None:
    """For a user without rights, it names the missing one; the doctor names what it could not see."""
    told = run_case(case, own.url.replace("://", f"://guest:{PASSWORD}@"), tmp_path)
    if case.words[0] == "doctor":
        assert told.errors == ""
        assert case.refused in told.output
    else:
        assert told.code == 2
        assert case.refused in told.complaint
    assert own.keys() == set()


@pytest.mark.parametrize("case", {(case.words[0], FILE in case.words): case for case in TABLE}.values(), ids=str)
def test_stopped(case: Case, tmp_path: Path) -> None:
    """A signal while a server does not reply ends a command at once; with a file, it prints the line to resume with."""
    (tmp_path / FILE).write_text(EVENT)
    words = [str(tmp_path / FILE) if word == FILE else word for word in case.words]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(scaled(20))
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with running(*words, "--url", url) as command:
            pipe(command.stdin).write(CLAIMS)
            pipe(command.stdin).close()
            with silent.accept()[0]:
                command.send_signal(signal.SIGTERM)
                assert command.wait(scaled(10)) == 128 + signal.SIGTERM
            told = "jwt-events: stopped: published: 0; go on with --from-line 1\n" if FILE in case.words else ""
            assert (pipe(command.stdout).read(), pipe(command.stderr).read()) == ("", told)
