"""The command line as a whole: help, errors, signals, secrets and the development server."""

from __future__ import annotations

import fcntl
import re
import resource
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import redis

from jwt_events import EventType
from jwt_events.envelope import Envelope, encode
from tests.meta.test_shape import modules, targets
from tests.support.commands import pipe, run, run_apart, run_in_terminal, running
from tests.support.examples import COMPACT_JWT, revoked
from tests.support.waiting import block_until, scaled

PASSWORD = "correct-horse-battery"
CLAIMS = '{"jti": "token-1"}'

COMMANDS = [
    (),
    ("demo",),
    ("tail",),
    ("check",),
    ("groups",),
    ("fleet",),
    ("serve",),
    ("doctor",),
    ("bench",),
    ("publish",),
    *(("publish", kind.replace("_", "-")) for kind in EventType),
    ("dead",),
    *(("dead", name) for name in ("list", "show", "replay", "purge")),
    ("signals",),
    *(("signals", name) for name in ("discover", "list", "create", "show", "update", "delete")),
    *(("signals", name) for name in ("status", "verify", "add-subject", "remove-subject")),
]


ONE = ("publish", "token-revoked")

# Prefixes of modules that no help needs.
UNNEEDED = (
    *("redis.", "rich.", "opentelemetry.", "prometheus_client.", "jwt_events.envelope."),
    *(f"jwt_events.cli.{name}._" for name in ("bench", "demo", "doctor")),
)


class TestHelp:
    """The help of every command."""

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_help(self, words: tuple[str, ...]) -> None:
        """Every command has help, which lists the exit codes."""
        told = run(*words, "--help")
        assert (told.code, told.errors) == (0, "")
        assert "Exit codes: 0 done" in told.output
        assert "None" not in told.output
        assert "`" not in told.output

    def test_no_command(self) -> None:
        """Without a command, the help is shown."""
        assert run().output == run("--help").output

    def test_help_loads_nothing_that_it_does_not_need(self) -> None:
        """No help imports a Redis client, rich, metrics, tracing, or modules that only a running command needs."""
        code = (
            "import sys; from jwt_events.cli import app\n"
            f"for words in {COMMANDS!r}:\n"
            "    try: app([*words, '--help'])\n"
            "    except SystemExit: pass\n"
            f"print([name for name in sys.modules if (name + '.').startswith({UNNEEDED!r})])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    @pytest.mark.parametrize(
        "words", [(), *((word,) for word in ("bench", "check", "demo", "publish", "tail")), ONE], ids=" ".join
    )
    def test_help_is_quick(self, words: tuple[str, ...]) -> None:
        """Help takes a fraction of a second of CPU time, which other work on the machine does not affect."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_apart(*words, "--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < scaled(0.7)

    def test_completion(self) -> None:
        """The command prints completion for a shell."""
        told = run_apart("--show-completion", "bash")
        assert "COMPLETE" in told.output or "shell" in (told.output + told.errors).lower()


class TestPackages:
    """The packages of the commands that have more than one file."""

    def test_through_the_face(self) -> None:
        """A module of the command line imports the modules with an underscore of its own package only."""
        foreign = [
            (name, target)
            for name, module in modules().items()
            for target in targets(module)
            if name.startswith("cli") and target.startswith("cli.") and "._" in target
            if not name.startswith(target.partition("._")[0])
        ]
        assert foreign == []


class TestUsage:
    """A usage error is one line with advice, and the exit code is 2."""

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (("nonsense",), "No such command 'nonsense'. See 'jwt-events --help'."),
            (("serv",), "Did you mean 'serve'? See 'jwt-events --help'."),
            (("tail", "--nonsense"), "--nonsense"),
            (("publish",), "--file"),
            (("dead", "show"), "ID"),
            (("publish", "session-created", "--session-id", "s"), "--user-id"),
            (("publish", "token-revoked"), "--client-id, --claims, --everyone"),
            (("publish", "token-revoked", "--token-id", "t", "--expires-at", "2027"), "--expires-at"),
            (("publish", "token-revoked", "--token-id", "t", "--expires-at", "2026-03-01"), "offset"),
            (("publish", "token-revoked", "--token-id", "t", "--metadata", "{"), "--metadata"),
            (("publish", "token-revoked", "--token-id", "t", "--retention", "soon"), "--retention"),
            (("publish", "token-revoked", "--token-id", "t", "--channel", "c"), "--key"),
            (("publish", "token-revoked", "--token-id", "t", "--transport", "pubsub", "--key", "k"), "--channel"),
            (("publish", "--file", "/nowhere/events.jsonl"), "No such file"),
            (("publish", "--file", "x", "token-revoked", "--token-id", "t"), "--file"),
            (("publish", "--key", "k", "token-revoked", "--token-id", "t"), "say it after token-revoked"),
            (("publish", "events.jsonl"), "events.jsonl"),
            (("publish", "--file", "x", "--from-line", "0"), "--from-line"),
            (("tail", "--start", "yesterday"), "--start"),
            (("tail", "--type", "token_lost"), "--type"),
            (("tail", "--transport", "pubsub", "--start", "all"), "remembers nothing"),
            (("tail", "--transport", "pubsub", "--until-current"), "--until-current"),
            (("tail", "--url", "http://localhost"), "--url"),
            (("tail", "--url", ""), "--url"),
            (("--url", "", "tail"), "--url"),
            (("check", "--max-staleness", "0"), "--max-staleness"),
            (("dead", "list", "--after", "x"), "ID"),
            (("dead", "replay"), "--all"),
            (("dead", "replay", "1-1", "--all"), "--all"),
            (("dead", "purge", "--all"), "--yes"),
            (("doctor", "--key", " "), "--key"),
            (("serve", "--port", "70000"), "--port"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_bad_input(self, words: tuple[str, ...], named: str) -> None:
        """The line names the argument that is wrong."""
        told = run(*words, given=CLAIMS)
        assert told.code == 2
        assert named in told.complaint

    @pytest.mark.parametrize(
        "words", [("check", COMPACT_JWT), (COMPACT_JWT,), ("publish", "token-revoked", COMPACT_JWT)]
    )
    def test_token_as_an_argument(self, words: tuple[str, ...]) -> None:
        """A token as an argument is refused and not repeated."""
        told = run(*words)
        assert told.code == 2
        assert COMPACT_JWT not in told.complaint

    @pytest.mark.parametrize("words", [(), ("groups",), ("publish",)])
    def test_url_as_an_argument(self, words: tuple[str, ...]) -> None:
        """A URL as an argument is refused without its password."""
        told = run(*words, f"redis://user:{PASSWORD}@localhost")
        assert told.code == 2
        assert PASSWORD not in told.complaint

    @pytest.mark.parametrize("field", ["--token-id", "--user-id", "--reason", "--source"])
    def test_token_as_a_field(self, field: str) -> None:
        """A whole token is not published, and not repeated."""
        told = run("publish", "token-revoked", "--client-id", "c", field, COMPACT_JWT)
        assert told.code == 2
        assert field in told.complaint
        assert COMPACT_JWT not in told.complaint


class TestTerminal:
    """Output in a terminal."""

    def test_progress_and_tables(self, url: str, key: str, tmp_path: Path) -> None:
        """In a terminal, publishing a file shows a progress bar, and a table has lines; elsewhere neither is drawn."""
        path = tmp_path / "events.jsonl"
        path.write_text('{"type": "token_expired", "token_id": "t"}\n' * 3)
        code, written = run_in_terminal("publish", "--file", str(path), "--key", key, url=url)
        assert code == 0
        assert "━" in written
        assert "published=3 next_line=4" in written
        code, written = run_in_terminal("doctor", "--key", key, url=url)
        assert "──" in written
        assert "holds 3" in written
        assert "\t" not in written
        assert "──" not in run("doctor", "--key", key, url=url).output


class TestSignals:
    """A signal ends a command at once, without a message."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_tail(self, url: str, key: str, number: signal.Signals) -> None:
        """A tail that has shown an event exits with 128 and the number of the signal."""
        with running("tail", "--start", "all", "--key", key, url=url) as tail:
            assert run("publish", "token-revoked", "--token-id", "t", "--key", key, url=url).code == 0
            assert "token_id=t" in pipe(tail.stdout).readline()
            tail.send_signal(number)
            assert tail.wait(scaled(10)) == 128 + number
            assert pipe(tail.stdout).read() == ""
            (line,) = pipe(tail.stderr).read().splitlines()
            assert line.startswith(f"jwt-events: listening to the stream '{key}' at ")

    def test_publishing(self, url: str, key: str) -> None:
        """Publishing from a pipe that stays open ends on a signal, and prints the line to resume with."""
        with running("publish", "--file", "-", "--batch-size", "1", "--key", key, url=url) as publish:
            pipe(publish.stdin).write('{"type": "token_expired", "token_id": "t"}\n' * 2)
            pipe(publish.stdin).flush()
            assert run("tail", "--start", "all", "--count", "2", "--key", key, url=url).code == 0
            publish.send_signal(signal.SIGINT)
            assert publish.wait(scaled(10)) == 130
            # The second may not have been confirmed yet.
            assert re.search(r"published: [12]; go on with --from-line [23]\n", pipe(publish.stderr).read())

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_its_reader_has_stopped_reading(self, url: str, key: str, name: str, number: signal.Signals) -> None:
        """A tail whose output is not read any more ends on a signal all the same."""
        payload = encode(Envelope(revoked()), source="x") if name == "stdout" else b"no event"
        with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
            for _ in range(2_000):
                pipeline.xadd(key, {"event": payload})
            pipeline.execute()
        with running("tail", "--start", "all", "--key", key, url=url) as tail:
            full = pipe(getattr(tail, name)).fileno()
            room = fcntl.fcntl(full, fcntl.F_GETPIPE_SZ) - select.PIPE_BUF
            block_until(lambda: _bytes_in(full) > room, within=20, what="the pipe to be full")
            tail.send_signal(number)
            assert tail.wait(scaled(10)) == 128 + number
            assert "Traceback" not in pipe(tail.stderr).read()

    def test_nobody_reads(self, url: str, key: str) -> None:
        """A tail whose output is closed ends by itself, without a message."""
        with running("tail", "--key", key, url=url) as tail:
            pipe(tail.stdout).close()
            block_until(lambda: tail.poll() is not None, within=10, what="the end of the tail")
            assert tail.returncode == 128 + signal.SIGPIPE
            assert len(pipe(tail.stderr).read().splitlines()) == 1


def _bytes_in(descriptor: int) -> int:
    """Return how many bytes of a pipe were not read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


class TestServe:
    """``jwt-events serve``."""

    def test_serve(self, tmp_path: Path) -> None:
        """It prints its URL, keeps its data, and ends with the signal."""
        data = tmp_path / "data"
        for number, expected in ((signal.SIGINT, ["allow"]), (signal.SIGTERM, ["revoked"])):
            with running("serve", "--port", "0", "--data-dir", str(data)) as serve:
                url = pipe(serve.stdout).readline().strip()
                assert [
                    record["verdict"] for record in run("check", "--json", url=url, given=CLAIMS).records
                ] == expected
                assert run("publish", "token-revoked", "--token-id", "token-1", url=url).code == 0
                serve.send_signal(number)
                assert serve.wait(scaled(10)) == 128 + number
        assert run("groups", url=url).code == 2

    def test_port_in_use(self) -> None:
        """A port that is in use is one line."""
        with running("serve", "--port", "0") as serve:
            port = pipe(serve.stdout).readline().strip().rpartition(":")[2]
            told = run("serve", "--port", port)
            assert told.code == 2
            assert "in use" in told.complaint
            assert "--port" in told.complaint

    def test_killed(self) -> None:
        """If the server ends, the command says so and ends."""
        with running("serve", "--port", "0") as serve:
            with redis.Redis.from_url(pipe(serve.stdout).readline().strip()) as client:
                client.shutdown(nosave=True)
            assert serve.wait(scaled(10)) == 2
            assert "the server ended" in pipe(serve.stderr).read()
