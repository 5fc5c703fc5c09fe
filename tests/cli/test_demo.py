"""The demo, run as a command."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import IO

import pytest

from jwt_events import EventType
from jwt_events.embedded import EmbeddedServer
from tests.support.documents import ROOT
from tests.support.processes import descendants, is_alive
from tests.support.waiting import block_until, scaled

COMMAND = (sys.executable, "-m", "jwt_events.cli")
PASSWORD = "correct-horse-battery"

# More than any test waits for.
ENDLESS = ("--events", "10000000")

# Without the second act, and with hardly anything but the second act.
FIRST_ACT = ("--revocations", "0")
SECOND_ACT = ("--events", "10", "--revocations", "1")


def run(*arguments: str, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with this directory for temporary files."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
        env=environment(temporary),
    )


def environment(temporary: Path | None) -> dict[str, str]:
    """The environment, with this directory for temporary files."""
    return {**os.environ, **({} if temporary is None else {"TMPDIR": str(temporary)})}


@contextmanager
def running(
    *arguments: str, until: str = "published", temporary: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a demo, and wait until it has printed a text; by default it is then publishing."""
    with subprocess.Popen(
        [*COMMAND, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environment(temporary),
    ) as process:
        try:
            assert process.stdout is not None
            read_until(process.stdout, until)
            yield process
        finally:
            process.kill()


def read_until(output: IO[str], text: str) -> None:
    """Read lines until one holds the text."""
    for line in output:  # ends with the process, which pytest's own deadline bounds
        if text in line:
            return
    raise AssertionError(f"the output ended without {text!r}")


def all_gone(pids: dict[int, str]) -> Callable[[], bool]:
    """Return a predicate: whether all these processes have ended."""
    return lambda: not any(is_alive(pid) for pid in pids)


def pid_of(processes: dict[int, str], *words: str) -> int:
    """The one process whose command line contains these words."""
    (pid,) = (pid for pid, command in processes.items() if all(word in command for word in words))
    return pid


def run_in_terminal(*arguments: str, columns: int) -> tuple[int, str]:
    """Run the demo in a terminal of this width; return the exit code and the output."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    with subprocess.Popen(
        [*COMMAND, "demo", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], scaled(30))[0]:
            try:
                written += os.read(ours, 65_536)
            except OSError:  # how the end of a terminal looks on Linux
                break
        os.close(ours)
        return process.wait(scaled(10)), written.decode()


class TestCommand:
    """Runs that succeed."""

    @pytest.mark.parametrize("transport", ["stream", "pubsub"])
    def test_json(self, transport: str, tmp_path: Path) -> None:
        """``--json`` prints exactly one object: every event was handled, every revoked token refused, none let in."""
        arguments = ("--events", "400", "--revocations", "2", "--transport", transport)
        done = run("demo", "--json", *arguments, temporary=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        assert result["published"] == 400
        assert result["handled"] == {"api": 400, "billing": 400, "websocket": 400}
        assert result["lost"] == 0
        assert 0 < result["p50_ms"] <= result["p99_ms"] < scaled(10_000)
        after = result["refused_after_ms"]
        assert 0 < after["p50"] <= after["p99"] <= after["max"] < scaled(10_000)
        assert (result["revoked"], result["not_refused"], result["stale_allows"]) == (6, 0, 0)
        assert result["stale_for_ms"] > 0
        assert result["fresh_again_after_ms"] > 0
        assert result["server"].startswith("Valkey ")
        assert result["transport"] == transport
        assert list(tmp_path.iterdir()) == []

    def test_as_fast_as_possible(self) -> None:
        """``--rate 0`` and many subscribers lose nothing either."""
        done = run("demo", "--json", "--events", "1000", "--rate", "0", "--subscribers", "9", *FIRST_ACT)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert list(result["handled"].values()) == [1_000] * 9
        assert len(result["handled"]) == 9

    def test_one_event(self) -> None:
        """A demo of a single event works; fields of the second act are null."""
        done = run("demo", "--json", "--events", "1", *FIRST_ACT)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["published"] == 1
        assert result["refused_after_ms"] is result["stale_allows"] is result["stale_for_ms"] is None

    def test_plain_output(self) -> None:
        """Without a terminal it prints plain lines without control characters, and the table at the end."""
        done = run("demo", "--events", "300", "--revocations", "2")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        lines = done.stdout.splitlines()
        assert lines[:3] == ["Looking for the server ...", "Starting the processes ...", "Publishing ..."]
        assert any(line.split()[:3] == ["billing", "300", "0"] for line in lines)
        assert "Every service handled every event." in done.stdout
        killed = lines.index("Killing the server ...")
        assert lines[killed + 1 : killed + 4] == [
            f"  {name:<12}✗✗  ✗✗  ✗✗  …" for name in ("api", "billing", "websocket")
        ]
        back = lines.index("Bringing the server back ...")
        assert lines[back + 2] == "  billing     ✗✗  ✗✗  ✗✗  ✓"
        assert "  services started anew: nothing forgotten" in lines
        assert "Every service refused every revoked token" in done.stdout
        assert max(map(len, lines)) <= 80

    def test_terminal(self) -> None:
        """In a terminal of 80 columns it draws a live picture, and shows the cursor again at the end."""
        code, written = run_in_terminal("--events", "300", "--revocations", "1", columns=80)
        assert code == 0
        assert "Publishing" in written
        assert any(kind in written for kind in EventType)
        assert "503 cannot know" in written
        assert "Every service handled every event." in written
        assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is hidden"

    def test_on_a_server_of_the_users(self, url: str) -> None:
        """``--url`` uses a running server, leaves it running, and leaves no key and no connection behind."""
        done = run("demo", "--json", "--events", "200", "--revocations", "1", "--url", url)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert list(result["handled"].values()) == [200] * 3
        assert (result["revoked"], result["not_refused"], result["stale_allows"]) == (3, 0, 0)
        assert result["stale_for_ms"] is None, "the user's server was killed"
        assert result["server"].split()[0] in {"Valkey", "Redis"}

    @pytest.mark.parametrize("arguments", [("--help",), ("demo", "--help")])
    def test_help(self, arguments: tuple[str, ...]) -> None:
        """The command and the demo have help."""
        done = run(*arguments)
        assert done.returncode == 0
        assert "demo" in done.stdout

    def test_version(self) -> None:
        """``--version`` names the library and its version."""
        assert run("--version").stdout.startswith("jwt_events ")


class TestTrouble:
    """Bad options, and failures during a run."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--events", "0"),
            ("--rate", "-1"),
            ("--subscribers", "2"),
            ("--revocations", "17"),
            ("--transport", "pigeon"),
            ("--events", "many"),
            ("--url", ""),
            ("--url", f"http://joe:{PASSWORD}@localhost"),
            ("--url", f"redis://joe:{PASSWORD}@localhost:port"),
        ],
    )
    def test_bad_options(self, arguments: tuple[str, ...]) -> None:
        """An option that cannot work is refused with 2, on standard error, without a traceback or a password."""
        done = run("demo", "--json", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert arguments[0] in done.stderr
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stderr

    def test_unreachable_server(self) -> None:
        """A server that does not reply is one line with its address and advice, without the password."""
        with socket.socket() as taken:  # and not listening
            taken.bind(("127.0.0.1", 0))
            host, port = taken.getsockname()
            done = run("demo", "--json", "--url", f"redis://joe:{PASSWORD}@{host}:{port}/0")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert f"{host}:{port}" in line
        assert "Without --url" in line
        assert PASSWORD not in line

    async def test_wrong_password(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A server that refuses the password is one line, without the password."""
        async with own_server(port=0) as server:
            url = server.url.replace("redis://", f"redis://joe:{PASSWORD}@")
            done = await asyncio.to_thread(run, "demo", "--json", "--url", url)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "user and password" in line
        assert PASSWORD not in line

    def test_lost_events(self) -> None:
        """If a subscriber dies, the events that it did not handle count as lost, and the exit code is 1."""
        with running("--events", "600", "--rate", "300", *FIRST_ACT) as demo:
            os.kill(pid_of(descendants(demo.pid), "service", "billing"), signal.SIGKILL)
            output, errors = demo.communicate(timeout=scaled(30))
            assert (demo.returncode, errors) == (1, "")
            assert "were lost" in output

    def test_server_dies(self) -> None:
        """If the server dies, one line says so, the exit code is 2, and nothing is left running."""
        with running(*ENDLESS) as demo:
            processes = descendants(demo.pid)
            (server,) = (pid for pid, command in processes.items() if "valkey-server" in command.split()[0])
            os.kill(server, signal.SIGKILL)
            _, errors = demo.communicate(timeout=scaled(30))
            assert demo.returncode == 2
            assert len(errors.splitlines()) == 1
            block_until(all_gone(processes), within=5)

    def test_without_the_extra(self) -> None:
        """Without typer, the command prints one line that names the extra."""
        code = "import sys; sys.modules['typer'] = None; import jwt_events.cli"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "pip install '.[cli,embedded,keys]'" in line

    def test_without_keys(self) -> None:
        """Without PyJWT, it starts nothing and prints one line that names the extra."""
        code = "import sys; sys.modules['jwt'] = None; from jwt_events.cli import app; app()"
        command = [sys.executable, "-c", code, "demo", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "pip install '.[keys]'" in line

    def test_service_dies(self) -> None:
        """If a service dies in the second act, one line says so, and the exit code is 2."""
        with running(*SECOND_ACT, until="Revoking tokens") as demo:
            os.kill(pid_of(descendants(demo.pid), "service", "billing"), signal.SIGKILL)
            _, errors = demo.communicate(timeout=scaled(30))
            assert demo.returncode == 2
            (line,) = errors.splitlines()
            assert "billing" in line


class TestStopping:
    """No process is left, however the demo ends."""

    @pytest.mark.parametrize(
        ("number", "arguments", "moment"),
        [
            (signal.SIGHUP, ENDLESS, "published"),
            (signal.SIGTERM, SECOND_ACT, "Revoking users"),
            (signal.SIGINT, SECOND_ACT, "Bringing the server back"),
        ],
    )
    def test_signal(self, number: signal.Signals, arguments: Sequence[str], moment: str, tmp_path: Path) -> None:
        """A signal ends all processes in order at any moment, and the exit code contains its number."""
        with running(*arguments, until=moment, temporary=tmp_path) as demo:
            processes = descendants(demo.pid)
            assert len(processes) >= 5, processes  # an issuer, three services, and the keeper of the server
            demo.send_signal(number)
            demo.send_signal(number)  # a second signal changes nothing
            _, errors = demo.communicate(timeout=scaled(20))
            assert (demo.returncode, errors) == (128 + number, "")
            assert all_gone(processes)()
            assert list(tmp_path.iterdir()) == []

    def test_signal_on_a_server_of_the_users(self, url: str) -> None:
        """When interrupted, it leaves no stream on the user's server; no process has the URL in its command line."""
        with running(*ENDLESS, "--url", url) as demo:
            processes = descendants(demo.pid)
            assert len(processes) == 4
            assert not any(url in command for command in processes.values())
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=scaled(20))
            assert demo.returncode == 130
            assert all_gone(processes)()

    def test_control_c_in_make(self) -> None:
        """Ctrl-C in a terminal ends `make demo` without a complaint of make."""
        ours, theirs = pty.openpty()
        # The first terminal that a new session opens is the one whose Ctrl-C it gets.
        opened = ("sh", "-c", ': <"$0"; exec "$@"', os.ttyname(theirs))
        words = ("make", "demo", "READY=", f"BIN={Path(sys.executable).parent}", "--directory", str(ROOT))
        with subprocess.Popen(
            [*opened, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as make:
            os.close(theirs)
            written, is_sent = b"", False
            while select.select([ours], [], [], scaled(30))[0]:
                try:
                    written += os.read(ours, 65_536)
                except OSError:  # how the end of a terminal looks on Linux
                    break
                if b"Starting the processes" in written and not is_sent:
                    is_sent = os.write(ours, b"\x03") > 0
            os.close(ours)
            make.wait(scaled(10))
        assert is_sent
        assert b"\nmake: ***" not in written
        assert b"Error" not in written

    def test_kill(self, tmp_path: Path) -> None:
        """If the demo is killed, its processes and both its servers end by themselves, and no file is left."""
        with running(*SECOND_ACT, until="Starting the services anew", temporary=tmp_path) as demo:
            processes = descendants(demo.pid)
            demo.kill()
            block_until(all_gone(processes), within=5)
            block_until(lambda: list(tmp_path.iterdir()) == [], within=5, what="an empty directory")
