"""``jwt-events bench``: its results, and that it leaves nothing on the server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from jwt_events.cli.bench._measurements import KEPT_FOR
from tests.support.commands import pipe, run, run_in_terminal, running
from tests.support.servers import OWN_KINDS, Server, shared
from tests.support.waiting import block_until, scaled

QUICKLY = ("--seconds", "0.3")


@pytest.fixture(params=OWN_KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, in which it may create users."""
    with shared(request.param) as server:
        yield server


def streams(server: Server) -> set[bytes]:
    """The streams of benchmarks on a server."""
    return set(server.inspector.scan_iter(match="jwt-events:bench:*"))


def user(server: Server, *rights: str) -> str:
    """Make a user with these rights; return the URL for this user."""
    words = ("ACL", "SETUSER", "u", "reset", "on", ">secret", "~*", "&*", *rights)
    server.inspector.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
    return server.url.replace("://", "://u:secret@")


class TestResults:
    """The results."""

    def test_json(self, url: str) -> None:
        """Each result compares this library with redis-py alone; standard error names the server and the stream."""
        told = run("bench", *QUICKLY, "--json", url=url)
        assert told.code == 0
        (said,) = told.errors.splitlines()
        assert "busy for about 0.3 s, with events in 'jwt-events:bench:" in said
        assert [(record["what"], record["unit"]) for record in told.records] == [
            ("publish one by one", "events/s"),
            ("publish from 64 tasks", "events/s"),
            ("publish many at a time", "events/s"),
            ("drain a stream into handlers", "events/s"),
            ("Pub/Sub end to end", "events/s"),
            ("publish to handled, p50", "ms"),
            ("publish to handled, p99", "ms"),
        ]
        for record in told.records:
            assert record["ratio"] == pytest.approx(record["jwt_events"] / record["redis_py"], rel=0.05)

    def test_terminal(self, url: str) -> None:
        """In a terminal it is a table."""
        code, written = run_in_terminal("bench", *QUICKLY, url=url)
        assert code == 0
        assert "──" in written
        assert "drain a stream into handlers" in written


class TestNothingStays:
    """It leaves nothing behind, as it is meant for servers that others use too."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stopped(self, server: Server, number: signal.Signals) -> None:
        """When a signal stops it, it deletes its stream, without a message."""
        with running("bench", "--seconds", "300", url=server.url) as bench:
            block_until(lambda: streams(server), within=30, what="its stream")
            bench.send_signal(number)
            assert bench.wait(scaled(20)) == 128 + number
            assert pipe(bench.stdout).read() == ""
            assert len(pipe(bench.stderr).read().splitlines()) <= 1  # the line at the beginning
        assert streams(server) == set()

    def test_killed(self, own: Server) -> None:
        """When it is killed, it leaves a stream that expires."""
        with running("bench", "--seconds", "300", url=own.url) as bench:
            block_until(lambda: streams(own), within=30, what="its stream")
            assert "busy" in pipe(bench.stderr).readline()
            bench.kill()
            bench.wait(scaled(10))
        inspector: Any = own.inspector
        (name,) = streams(own)
        assert 0 < inspector.ttl(name) <= KEPT_FOR

    def test_server_ends(self, own: Server) -> None:
        """When the server ends meanwhile, it says so, and that it could not delete its stream."""
        with running("bench", "--seconds", "300", url=own.url) as bench:
            assert "busy" in pipe(bench.stderr).readline()
            own.inspector.shutdown(nosave=True)
            assert bench.wait(scaled(30)) == 2
            deleting, failed = pipe(bench.stderr).read().splitlines()
        assert f"could not be deleted and expires in {KEPT_FOR} s" in deleting
        assert "failed" in failed

    def test_no_right_to_delete(self, own: Server) -> None:
        """Without the right to delete a stream it creates none."""
        told = run("bench", *QUICKLY, url=user(own, "+@all", "-unlink"))
        assert told.code == 2
        assert "UNLINK" in told.complaint
        assert "NOPERM" in told.complaint
        assert own.keys() == set()

    @pytest.mark.parametrize("lacking", ["-expire", "-xadd", "-xread", "-publish", "-subscribe", "-xtrim"])
    def test_no_right_to_the_rest(self, own: Server, lacking: str) -> None:
        """Without another right it says which, and deletes its stream."""
        told = run("bench", *QUICKLY, url=user(own, "+@all", lacking))
        assert told.code == 2
        assert "NOPERM" in told.errors.splitlines()[-1]
        assert own.keys() == set()
