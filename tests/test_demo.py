"""The demo: the command as a stranger runs it, and the pure parts that it is made of."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import EventType, TokenRevoked
from jwt_events.demo import Board, Row
from jwt_events.demo_process import Latencies, Order, Pace, Report, Tally, make_event, remark_on
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, decode, encode
from tests.support.waiting import block_until, scaled

COMMAND = (sys.executable, "-m", "jwt_events.cli")
PASSWORD = "correct-horse-battery"

# More than any test waits for.
ENDLESS = ("--events", "10000000")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a demo that is in the middle of publishing."""
    with subprocess.Popen(
        [*COMMAND, "demo", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            read_until(process.stdout, "published")
            yield process
        finally:
            process.kill()


def read_until(output: IO[str], text: str) -> None:
    """Read lines until one holds the text."""
    for line in output:  # ends with the process, which pytest's own deadline bounds
        if text in line:
            return
    raise AssertionError(f"the output ended without {text!r}")


def family(pid: int) -> dict[int, str]:
    """The processes that this one started, and those that they started, each with its command line."""
    found: dict[int, str] = {}
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            found.update(family(child))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(pids: dict[int, str]) -> Callable[[], bool]:
    """Make a question: have all these ended?"""
    return lambda: not any(is_alive(pid) for pid in pids)


def pid_of(processes: dict[int, str], *words: str) -> int:
    """The one process whose command line holds these words."""
    (pid,) = (pid for pid, command in processes.items() if all(word in command for word in words))
    return pid


def run_in_terminal(*arguments: str, columns: int) -> tuple[int, str]:
    """Run the demo in a terminal of this width; return the exit code and what was written."""
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
    """What a stranger runs."""

    @pytest.mark.parametrize("transport", ["stream", "pubsub"])
    def test_json(self, transport: str) -> None:
        """``--json`` prints exactly one object, in which every subscriber handled every event."""
        done = run("demo", "--json", "--events", "400", "--transport", transport)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        assert result["published"] == 400
        assert result["handled"] == {"api": 400, "billing": 400, "websocket": 400}
        assert result["lost"] == 0
        assert 0 < result["p50_ms"] <= result["p99_ms"] < scaled(10_000)
        assert result["server"].startswith("Valkey ")
        assert result["transport"] == transport

    def test_as_fast_as_possible(self) -> None:
        """``--rate 0`` and many subscribers lose nothing either."""
        done = run("demo", "--json", "--events", "3000", "--rate", "0", "--subscribers", "9")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert list(result["handled"].values()) == [3_000] * 9
        assert len(result["handled"]) == 9

    def test_one_event(self) -> None:
        """A demo of a single event is a demo."""
        done = run("demo", "--json", "--events", "1")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["published"] == 1

    def test_plain_output(self) -> None:
        """Where the output is no terminal there are plain lines, no control characters, and the table at the end."""
        done = run("demo", "--events", "300")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        lines = done.stdout.splitlines()
        assert lines[:3] == ["Looking for the server ...", "Starting the processes ...", "Publishing ..."]
        assert any(line.split()[:3] == ["billing", "300", "0"] for line in lines)
        assert "Every service handled every event." in done.stdout
        assert max(map(len, lines)) <= 80

    def test_terminal(self) -> None:
        """In a terminal of 80 columns it draws a picture, and gives the terminal back as it was."""
        code, written = run_in_terminal("--events", "300", columns=80)
        assert code == 0
        assert "Publishing" in written
        assert any(kind in written for kind in EventType)
        assert "Every service handled every event." in written
        assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is hidden"

    @pytest.mark.parametrize("transport", ["stream", "pubsub"])
    def test_on_a_server_of_the_users(self, url: str, transport: str) -> None:
        """``--url`` runs on a server that is there, and leaves no key and no connection behind."""
        done = run("demo", "--json", "--events", "200", "--url", url, "--transport", transport)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert list(result["handled"].values()) == [200] * 3
        assert result["server"].split()[0] in {"Valkey", "Redis"}

    @pytest.mark.parametrize("arguments", [("--help",), ("demo", "--help")])
    def test_help(self, arguments: tuple[str, ...]) -> None:
        """There is help for the command and for the demo."""
        done = run(*arguments)
        assert done.returncode == 0
        assert "demo" in done.stdout

    def test_version(self) -> None:
        """``--version`` names the library and its version."""
        assert run("--version").stdout.startswith("jwt_events ")


class TestTrouble:
    """What cannot work, and what goes wrong on the way."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--events", "0"),
            ("--rate", "-1"),
            ("--subscribers", "2"),
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
        """A server that does not answer is one line that says where, with advice, and without the password."""
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
        """A server that refuses the password is one line that says so, without the password."""
        async with own_server(port=0) as server:
            url = server.url.replace("redis://", f"redis://joe:{PASSWORD}@")
            done = await asyncio.to_thread(run, "demo", "--json", "--url", url)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "user and password" in line
        assert PASSWORD not in line

    def test_lost_events(self) -> None:
        """If a subscriber dies, what it did not handle is lost: the table says so, and the exit code is 1."""
        with running("--events", "1500", "--rate", "500") as demo:
            os.kill(pid_of(family(demo.pid), "subscriber", "billing"), signal.SIGKILL)
            output, errors = demo.communicate(timeout=scaled(30))
            assert (demo.returncode, errors) == (1, "")
            assert "were lost" in output

    def test_server_dies(self) -> None:
        """If the server dies, one line says so, the exit code is 2, and nothing is left running."""
        with running(*ENDLESS) as demo:
            processes = family(demo.pid)
            (server,) = (pid for pid, command in processes.items() if "valkey-server" in command.split()[0])
            os.kill(server, signal.SIGKILL)
            _, errors = demo.communicate(timeout=scaled(30))
            assert demo.returncode == 2
            assert len(errors.splitlines()) == 1
            block_until(all_gone(processes), within=5)

    def test_without_the_extra(self) -> None:
        """Without typer, the command says in one line what to install."""
        code = "import sys; sys.modules['typer'] = None; import jwt_events.cli"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "pip install 'jwt_events[cli,embedded]'" in line


class TestStopping:
    """Nothing is left running, however it ends."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signal(self, number: signal.Signals) -> None:
        """A signal in the middle ends everything in order, and the exit code tells which it was."""
        with running(*ENDLESS) as demo:
            processes = family(demo.pid)
            assert len(processes) >= 6, processes  # a publisher, three subscribers, the server and its keeper
            demo.send_signal(number)
            demo.send_signal(number)  # impatience changes nothing
            _, errors = demo.communicate(timeout=scaled(20))
            assert (demo.returncode, errors) == (128 + number, "")
            assert all_gone(processes)()

    def test_signal_on_a_server_of_the_users(self, url: str) -> None:
        """Interrupted, it leaves no stream on the user's server; no process that it started shows the URL."""
        with running(*ENDLESS, "--url", url) as demo:
            processes = family(demo.pid)
            assert len(processes) == 4
            assert not any(url in command for command in processes.values())
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=scaled(20))
            assert demo.returncode == 130
            assert all_gone(processes)()

    def test_kill(self) -> None:
        """If the demo is killed, its processes and its server end by themselves."""
        with running(*ENDLESS) as demo:
            processes = family(demo.pid)
            demo.kill()
            block_until(all_gone(processes), within=5)


class TestMix:
    """The events that are published."""

    def test_all_types_come_first(self) -> None:
        """The first five events are of five types."""
        assert {make_event(number).type for number in range(5)} == set(EventType)

    @pytest.mark.parametrize("step", [1, 10, 100, 1_000])
    def test_samples_show_all_types(self, step: int) -> None:
        """Whoever looks at some of the events only still sees all types."""
        assert {make_event(number * step).type for number in range(19)} == set(EventType)

    def test_events_are_real(self) -> None:
        """Each can travel, has an id of its own, and needs to be remembered for an hour at most."""
        events = [make_event(number) for number in range(200)]
        assert len({event.id for event in events}) == 200
        for event in events:
            assert decode(encode(Envelope(event), source="demo")).event.id == event.id
            assert (event.needed_until or event.occurred_at) <= event.occurred_at + timedelta(hours=1)

    def test_remarks_show_no_identifier(self) -> None:
        """What is shown of an event does not identify anybody."""
        events = [make_event(number) for number in range(19)]
        assert any(remark_on(event) for event in events)
        assert not any(event.subject and event.subject in remark_on(event) for event in events)


class TestNumbers:
    """What the processes count."""

    @given(st.lists(st.integers(0, 999), min_size=1), st.integers(1, 100))
    def test_percentile(self, values: list[int], percent: int) -> None:
        """A percentile is the value at the nearest rank."""
        latencies = Latencies()
        for value in values:
            latencies.note(value)
        assert latencies.percentile(percent) == sorted(values)[math.ceil(len(values) * percent / 100) - 1]

    def test_percentile_of_nothing(self) -> None:
        """Of nothing there is no percentile."""
        assert Latencies().percentile(50) is None

    def test_latencies_stay_small(self) -> None:
        """Latencies are kept with three digits, and a clock that was set back counts as none."""
        latencies = Latencies()
        assert latencies.note(1.23456) == latencies.note(1.2349) == 1.23
        assert latencies.note(-5.0) == 0.0
        assert latencies == {1.23: 2, 0.0: 1}

    def test_tally(self) -> None:
        """An event counts once, however often it comes."""
        tally = Tally()
        now = datetime.now(UTC)
        event = TokenRevoked(token_id="t", occurred_at=now - timedelta(milliseconds=2))
        for _ in range(3):
            tally.add(event, now)
        assert tally.report() == Report(count=1, latency_ms=2.0)
        assert tally.final_report() == Report(count=1, latency_ms=2.0, final=True, latencies=((2.0, 1),))

    @pytest.mark.parametrize(("rate", "due"), [(10, [0.0, 0.1, 0.2]), (0, [0.0, 0.0, 0.0])])
    def test_pace(self, rate: int, due: list[float]) -> None:
        """Events are due at equal distances, or all at once, and then there are none."""
        pace = Pace(Order("", "stream", "", 3, rate))
        planned = list(iter(pace.next_due, None))
        assert [number for number, _ in planned] == [0, 1, 2]
        assert [when for _, when in planned] == pytest.approx(due)

    def test_pace_reports_each_event_once(self) -> None:
        """The most recent event is in one report, without its identifiers."""
        pace = Pace(Order("", "stream", "", 3, 0))
        pace.add(TokenRevoked(token_id="secret", reason="device lost"))
        report = pace.report()
        assert report.count == 1
        assert report.recent is not None
        assert (report.recent[0], report.recent[2]) == ("token_revoked", "device lost")
        assert "secret" not in report.recent
        assert pace.report() == Report(count=1)

    def test_order_hides_the_url(self) -> None:
        """The URL, which may hold a password, does not show."""
        assert PASSWORD not in repr(Order(f"redis://:{PASSWORD}@host", "stream", "key", 1, 1))


class TestBoard:
    """What there is to see."""

    def test_rate(self) -> None:
        """A rate is that of the last second."""
        row = Row("api")
        assert row.rate == 0
        for now, number in [(100.0, 0), (100.5, 400), (101.0, 800), (101.5, 1_000)]:
            row.add(Report(count=number), now)
        assert row.rate == 600

    def test_lost(self) -> None:
        """Lost is what was published and not handled, by all services together."""
        board = Board(10, Row("publisher"), [Row("api"), Row("billing"), Row("websocket")])
        for row, number in zip(board.rows, (10, 10, 7, 9), strict=True):
            board.take(row, Report(count=number), 0.0)
        assert [board.lost_by(row) for row in board.services] == [0, 3, 1]
        assert board.lost == 4

    def test_feed_can_be_read(self) -> None:
        """The feed takes only as many events as a person can read, and keeps the last few."""
        board = Board(10, Row("publisher"), [])
        for tick in range(32):
            board.take(board.publisher, Report(count=tick, recent=("token_revoked", f"#{tick}", "")), 1 + tick / 8)
        assert [entry[2] for entry in board.feed] == ["#15", "#18", "#21", "#24", "#27", "#30"]

    def test_ended(self) -> None:
        """A process that ended without its last word has died; one that said it has finished."""
        row = Row("api", gone=True)
        assert row.finished
        assert row.died
        row.add(Report(final=True), 0.0)
        assert row.finished
        assert not row.died
