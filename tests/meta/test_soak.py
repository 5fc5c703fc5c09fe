"""The soak test: its verdict on made-up histories, and short real runs.

A verdict that never fails proves nothing, so each guarantee is broken here once, in a history of a few lines. Long runs
are made by ``make soak``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from bench.ports import free_port
from bench.soak.answers import MAX_ALLOW
from bench.soak.checkpoint import Checkpoint, CheckpointedTransport
from bench.soak.history import HistoryReader, HistoryWriter, Record, read, write
from bench.soak.plan import BLOCKS, Fault, make_plan
from bench.soak.verdict import Verdict, judge
from jwt_events import Event, Publisher, RedisStream, Subscriber, TokenRevoked
from jwt_events._internal.positions import sort_key
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import PublishError
from jwt_events.subscriber._reader import WINDOW
from jwt_events.transport.base import Delivery, Gap
from jwt_events.transport.memory import MemoryTransport
from tests.support.processes import descendants, is_alive
from tests.support.waiting import block_until, scaled, wait_until

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "bench.soak")


class Story:
    """A made-up history. The event with the number ``n`` was added to the stream at ``n`` ms, at position ``n-0``."""

    def __init__(
        self,
        transport: str = "stream",
        fsync: str = "always",
        subscribers: tuple[str, ...] = ("a",),
        **settings: Any,
    ) -> None:
        self._clock = count()
        self.records: list[Record] = []
        settings = {
            "topology": "single",
            "replicas": 0,
            "retention": None,
            "seed": 1,
            "events": 0,
            "faults": 0,
            "lists": [],
            **settings,
        }
        self.note("nemesis", "run", 0, transport=transport, fsync=fsync, subscribers=list(subscribers), **settings)

    def note(self, who: str, what: str, run: int = 0, **facts: Any) -> None:
        """Add a record, a second later than the one before."""
        self.records.append({"t": float(next(self._clock)), "who": who, "run": run, "what": what, **facts})

    def publish(self, *numbers: int, key: str = "k", outcome: str | None = "ok") -> None:
        """Publish events of a key, with these numbers."""
        for number in numbers:
            self.note("p", "invoke", id=f"{key}{number}", key=key, n=number)
            if outcome is not None:
                self.note("p", outcome, id=f"{key}{number}", position=f"{number}-0")

    def handle(self, *numbers: int, who: str = "a", run: int = 0, key: str = "k") -> None:
        """Handle events."""
        for number in numbers:
            self.note(who, "handled", run, id=f"{key}{number}")

    def ask(self, *, allow: tuple[str, ...] = (), revoked: tuple[str, ...] = (), asked: float | None = None) -> None:
        """Ask the list "l" about events; it was fresh."""
        at = float(len(self.records)) if asked is None else asked
        self.note("l", "checks", asked=at, allow=list(allow), revoked=list(revoked), stale=0, fresh=True)

    def start_list(self, known: int, *missing: str, since: str | None = None, at: int | None = None) -> None:
        """Start a list anew, which lacks these events, and reports a gap if there is a time of it."""
        gaps = [] if at is None else [{"since": since, "cause": "unproven_history", "at": at}]
        self.note("s", "started", known=known, missing=list(missing), stale=0, gaps=gaps)

    def gap(self, since: str | None, at: int, who: str = "a", run: int = 0) -> None:
        """Let a subscriber report a gap."""
        self.note(who, "gap", run, since=since, cause="restarted", lost=None, at=at)

    @property
    def verdict(self) -> Verdict:
        """The verdict on this history."""
        return judge(self.records)


class TestVerdict:
    """Each guarantee, kept and broken."""

    def test_all_is_well(self) -> None:
        """Events that were acknowledged and handled, in order, are no problem."""
        story = Story()
        story.publish(1, 2, 3)
        story.handle(1, 2, 3)
        assert story.verdict.problems == []
        assert (story.verdict.acknowledged, story.verdict.handled, story.verdict.lost) == (3, {"a": 3}, {"a": 0})

    def test_lost(self) -> None:
        """An event that was acknowledged and never handled is lost."""
        story = Story()
        story.publish(1, 2)
        story.handle(1)
        assert story.verdict.lost == {"a": 1}
        assert len(story.verdict.problems) == 2

    def test_every_subscriber_must_see_everything(self) -> None:
        """An event that one subscriber handled is lost for another that did not."""
        story = Story(subscribers=("a", "b"))
        story.publish(1)
        story.handle(1, who="a")
        assert story.verdict.lost == {"a": 0, "b": 1}
        assert story.verdict.problems

    def test_one_of_the_group_is_enough(self) -> None:
        """Where subscribers share the events, any of them may handle an event."""
        story = Story("group", subscribers=("a", "b"))
        story.publish(1)
        story.handle(1, who="b")
        assert story.verdict.lost == {"the group": 0}
        assert story.verdict.problems == []

    def test_all_incarnations_count(self) -> None:
        """What a subscriber handled before it was killed need not be handled again."""
        story = Story()
        story.publish(1, 2)
        story.handle(1, run=0)
        story.handle(2, run=1)
        assert story.verdict.problems == []

    def test_no_loss_is_allowed_where_everything_is_kept(self) -> None:
        """A gap does not excuse a loss on a server that synchronises every write."""
        story = Story()
        story.publish(1)
        story.gap("0-0", at=2)
        assert story.verdict.uncovered == 0
        assert story.verdict.problems

    @pytest.mark.parametrize(
        ("since", "at", "covered"),
        [("4-0", 9, True), (None, 9, True), ("5-0", 9, False), ("6-0", 9, False), ("4-0", 4, False), ("4-0", 5, True)],
    )
    def test_gaps_cover_losses(self, *, since: str | None, at: int, covered: bool) -> None:
        """A gap covers what was added after its position, and before it was reported."""
        story = Story(fsync="everysec")
        story.publish(5)
        story.gap(since, at)
        assert story.verdict.lost == {"a": 1}
        assert (story.verdict.uncovered == 0) is covered
        assert (story.verdict.problems == []) is covered

    def test_a_gap_of_another_subscriber(self) -> None:
        """Outside a group each subscriber must report its own gap; in a group one report is enough."""
        for transport, uncovered in (("stream", 1), ("group", 0)):
            story = Story(transport, "no", ("a", "b"))
            story.publish(1)
            story.gap(None, at=9, who="a")
            assert story.verdict.uncovered == uncovered

    def test_unknown_outcomes(self) -> None:
        """A publish without a reply may have happened or not."""
        story = Story()
        story.publish(1, 2, outcome="unknown")
        story.publish(3, 4, outcome=None)  # its process was killed
        story.handle(1, 3)
        assert story.verdict.unknown == 4
        assert story.verdict.problems == []

    def test_phantoms(self) -> None:
        """An event that was never published, or certainly not, must not be handled."""
        story = Story()
        story.publish(1, outcome="fail")
        story.handle(1, 2)
        assert story.verdict.phantoms == 2
        assert story.verdict.problems

    def test_duplicates(self) -> None:
        """One incarnation handles an event once; another incarnation may handle it again."""
        story = Story()
        story.publish(1)
        story.handle(1, run=0)
        story.handle(1, run=1)
        assert (story.verdict.duplicates, story.verdict.again) == (0, 1)
        assert story.verdict.problems == []
        story.handle(1, run=1)
        assert story.verdict.duplicates == 1
        assert story.verdict.problems

    def test_duplicates_beyond_the_window(self) -> None:
        """An event that comes again after more others than the window holds may be handled again."""
        for others, duplicates in ((WINDOW - 1, 1), (WINDOW, 0)):
            story = Story()
            numbers = range(1, others + 2)
            story.publish(*numbers)
            story.handle(*numbers)
            story.handle(1)
            assert story.verdict.duplicates == duplicates

    def test_order(self) -> None:
        """The events of a key are handled in order, those of different keys in any order."""
        story = Story()
        story.publish(1, 2)
        story.publish(3, 4, key="j")
        story.handle(1)
        story.handle(3, 4, key="j")
        story.handle(2)
        assert story.verdict.problems == []
        story.publish(5, 6)
        story.handle(6, 5)
        assert story.verdict.out_of_order == 1
        assert story.verdict.problems

    def test_no_order_is_guaranteed_in_a_group(self) -> None:
        """A redelivery in a group comes late, which is counted and no problem."""
        story = Story("group")
        story.publish(1, 2)
        story.handle(2, 1)
        assert story.verdict.out_of_order == 1
        assert story.verdict.problems == []

    def test_order_after_an_unknown_outcome(self) -> None:
        """The position of an event whose publish had no reply is unknown."""
        story = Story()
        story.publish(1, outcome="unknown")
        story.publish(2)
        story.handle(2, 1)
        assert story.verdict.problems == []

    def test_order_after_a_gap(self) -> None:
        """A reader that reported a gap may read older events again; newer events keep their order."""
        story = Story(fsync="no")
        story.publish(1, 2, 3, 4)
        story.handle(2)
        story.gap("2-0", at=2)
        story.handle(1, 3, 4)
        assert story.verdict.problems == []
        story.publish(5, 6)
        story.handle(6, 5)
        assert story.verdict.out_of_order == 1

    @pytest.mark.parametrize("what", ["overlap", "broken"])
    def test_what_must_not_happen(self, what: str) -> None:
        """Overlapping handlers of a key, and what the run itself recorded as broken, are problems."""
        story = Story()
        story.publish(1)
        story.handle(1)
        story.note("a", what, id="k1", problem="it exited by itself")
        assert len(story.verdict.problems) == 1

    def test_dead_letters(self) -> None:
        """No event is dead-lettered where no handler fails and the server loses nothing."""
        story = Story("group")
        story.publish(1)
        story.note("nemesis", "dead_lettered", id="k1")
        assert story.verdict.dead_lettered == 1
        assert story.verdict.problems

    def test_a_run_that_was_too_short(self) -> None:
        """A run with fewer events or faults than requested is a problem."""
        story = Story()
        story.records[0] |= {"events": 2, "faults": 2}
        story.publish(1)
        story.handle(1)
        for phase in ("begin", "end"):
            story.note("nemesis", "fault", number=0, kind="kill server", target="server", phase=phase)
        assert story.verdict.faults == {"kill server": 1}
        assert len(story.verdict.problems) == 2

    def test_order_of_what_is_published_again(self) -> None:
        """A subscriber that has handled an event may handle its copy after newer ones; others read copies in order."""
        story = Story(subscribers=("a", "b"))
        story.publish(1, 2, 3)
        story.handle(1, 2, 3, run=0)
        story.handle(1, who="b")
        story.handle(1, 2, 3, run=1)
        story.handle(3, 1, 2, run=2)
        story.handle(2, 3, who="b", run=1)
        assert story.verdict.problems == []
        story.publish(4, 5)
        story.handle(5, 4, run=2)
        story.handle(5, 4, who="b", run=1)
        assert story.verdict.out_of_order == 2

    def test_a_retention_may_overtake_a_subscriber(self) -> None:
        """What a subscriber did not read in time is no problem where events are removed, if a gap covers it."""
        for retention, problems in ((2.0, 0), (None, 1)):
            story = Story(retention=retention)
            story.publish(1)
            story.gap(None, at=9)
            assert len(story.verdict.problems) == problems


class TestLists:
    """What lists promise, kept and broken. Nothing is published at the server after 10 s of the clock of a story."""

    @staticmethod
    def story(**settings: Any) -> Story:
        """Begin a story with a list."""
        return Story(subscribers=(), lists=["l"], **settings)

    def test_all_is_well(self) -> None:
        """A list that refuses what was revoked, and starts that know it."""
        story = self.story()
        story.publish(1)
        story.ask(allow=("k1",))
        story.ask(revoked=("k1",))
        story.start_list(1)
        assert story.verdict.problems == []
        lists = story.verdict.lists
        assert (lists.asked, lists.starts, lists.longest_allow, lists.lost, lists.lacked) == (1, 1, 1.0, 0, 0)

    @pytest.mark.parametrize(("after", "is_stale"), [(MAX_ALLOW, False), (MAX_ALLOW + 0.01, True)])
    def test_stale_allow(self, *, after: float, is_stale: bool) -> None:
        """A token may be let in until the list must have been proven stale, and no longer."""
        story = self.story()
        story.publish(1)
        story.ask(allow=("k1",), asked=2.0 + after)
        story.ask(revoked=("k1",))
        assert bool(story.verdict.problems) is is_stale
        assert story.verdict.lists.stale_allows == is_stale

    def test_told_allows(self) -> None:
        """Where servers may lose what they confirmed, a gap that covers the event excuses it; else none does."""
        for replicas in (0, 2):
            story = self.story(topology="sentinel", replicas=replicas)
            story.publish(1)
            story.gap("0-0", at=5, who="l")
            story.ask(allow=("k1",), asked=60.0)
            story.ask(revoked=("k1",))
            assert (story.verdict.lists.stale_allows, story.verdict.lists.told_allows) == (0, 1)
            assert bool(story.verdict.problems) is bool(replicas)

    def test_never_known(self) -> None:
        """What a list never knew is lost, and no problem if it was told so, and there are no replicas."""
        story = self.story(topology="sentinel")
        story.publish(1, 2)
        story.ask(revoked=("k1",))
        assert (story.verdict.lists.lost, story.verdict.lists.lost_untold) == (1, 1)
        assert story.verdict.problems
        story.gap("1-0", at=5, who="l")
        assert (story.verdict.lists.lost, story.verdict.lists.lost_untold) == (1, 0)
        assert story.verdict.problems == []
        story.records[0]["replicas"] = 2
        assert story.verdict.problems

    def test_lacked_when_started(self) -> None:
        """A list that is started anew knows everything, or reports that it may not."""
        story = self.story(topology="sentinel")
        story.publish(1)
        story.ask(revoked=("k1",))
        story.start_list(1, "k1", at=5)
        assert (story.verdict.lists.lacked, story.verdict.lists.lacked_untold) == (1, 0)
        assert story.verdict.problems == []
        story.start_list(1, "k1")
        assert (story.verdict.lists.lacked, story.verdict.lists.lacked_untold) == (2, 1)
        assert story.verdict.problems

    def test_after_a_kill(self) -> None:
        """It is measured when a list was proven current again, and when the next event was acknowledged."""
        story = self.story(topology="sentinel")
        story.note("nemesis", "fault", number=0, kind="kill primary", target="server", phase="begin")
        story.note("l", "proof", as_of=1.2)
        story.note("l", "proof", as_of=2.5)
        story.publish(1)
        story.ask(revoked=("k1",))
        lists = story.verdict.lists
        assert (lists.fresh_after, lists.published_after) == ((2.0,) * 3, (4.0,) * 3)


class TestPlan:
    """The faults of a run."""

    @staticmethod
    def plan(seed: int, faults: int) -> list[Fault]:
        """Make a plan for one publisher and two subscribers."""
        return make_plan(seed, faults, publishers=["p"], subscribers=["a", "b"], also=["destroy group"])

    @given(seed=st.integers(), faults=st.integers(0, 60))
    def test_reproducible(self, seed: int, faults: int) -> None:
        """The same seed makes the same faults, in the requested number, each within its limits."""
        plan = self.plan(seed, faults)
        assert plan == self.plan(seed, faults)
        assert [fault.number for fault in plan] == list(range(faults))
        assert all(0.1 <= fault.seconds <= 3.0 and 0.0 <= fault.at <= 1.0 for fault in plan)

    def test_kinds(self) -> None:
        """Behind Sentinels there are other faults, lists have their own, and a run may be of a few kinds only."""
        plan = partial(make_plan, 1, publishers=["p"], subscribers=[], lists=["l"])
        kinds = {fault.kind for fault in plan(40, topology="sentinel")}
        assert kinds == {*BLOCKS["sentinel"], "kill list", "freeze list"} - {"kill subscriber", "freeze subscriber"}
        assert {fault.kind for fault in plan(9, only=["kill server"])} == {"kill server"}

    def test_seeds_differ(self) -> None:
        """Another seed makes other faults."""
        assert self.plan(1, 20) != self.plan(2, 20)

    @given(seed=st.integers())
    def test_every_kind_in_a_short_run(self, seed: int) -> None:
        """Twenty-two faults include every kind, on targets that it applies to."""
        plan = self.plan(seed, 22)
        assert len(Counter(fault.kind for fault in plan)) == 11
        targets = {"publisher": {"p"}, "subscriber": {"a", "b"}, "all": {"all"}}
        assert all(fault.target in targets.get(fault.kind.split()[-1], {"server"}) for fault in plan)


class TestHistory:
    """The files of a history."""

    def test_a_torn_line(self, tmp_path: Path) -> None:
        """An incomplete last line is left out; a line that is completed later is read later."""
        writer = HistoryWriter(tmp_path, "a", 0)
        writer.append("handled", id="1")
        writer.close()
        file = tmp_path / "a.0.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole + whole[:20])
        reader = HistoryReader(tmp_path)
        assert [record["id"] for record in reader.read_new()] == ["1"]
        assert reader.read_new() == []
        file.write_bytes(whole + whole)
        assert [record["id"] for record in reader.read_new()] == ["1"]

    def test_in_the_order_of_time(self, tmp_path: Path) -> None:
        """A merged history is in the order of time."""
        records: list[Record] = [{"t": 2.0, "who": "b"}, {"t": 1.0, "who": "a"}]
        write(tmp_path / "history", records)
        assert read(tmp_path / "history") == records[::-1]


class TestCheckpoint:
    """The position at which a reader resumes."""

    async def test_it_stays_before_unsettled_deliveries(self, tmp_path: Path) -> None:
        """It stays before the oldest unsettled delivery, and survives the process."""
        checkpoint = Checkpoint(tmp_path / "position")
        transport = CheckpointedTransport(MemoryTransport(), checkpoint)
        async with transport.receiver() as receiver, transport.sender() as sender:
            await sender.send([b"x"] * 4, within=1.0)
            deliveries: list[Delivery] = []
            while len(deliveries) < 4:
                deliveries += (await receiver.receive()).deliveries
            assert checkpoint.read() is None
            receiver.settle(deliveries[1])
            assert checkpoint.read() is None
            receiver.settle(deliveries[0])
            assert checkpoint.read() == deliveries[1].position
            receiver.settle(deliveries[3])
            receiver.settle(deliveries[2])
        checkpoint.close()
        reopened = Checkpoint(tmp_path / "position")
        assert reopened.read() == deliveries[3].position
        reopened.close()


def soak(*arguments: str, within: float) -> tuple[int, dict[str, Any]]:
    """Run a soak to its end; return the exit code and the verdict."""
    result = subprocess.run(
        [*COMMAND, "--json", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(within),
        check=False,
    )
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


class TestRuns:
    """Short real runs."""

    @pytest.mark.parametrize("transport", ["stream", pytest.param("group", marks=pytest.mark.stress)])
    def test_nothing_is_lost(self, transport: str, tmp_path: Path) -> None:
        """Ten thousand events under twelve faults, on a server that keeps what it confirmed: all are handled."""
        history = tmp_path / "history"
        arguments = ("--events", "10000", "--faults", "12", "--seed", "7", "--transport", transport)
        code, verdict = soak(*arguments, "--history", str(history), within=150)
        assert (code, verdict["problems"]) == (0, [])
        assert verdict["acknowledged"] >= 10_000
        assert sum(verdict["faults"].values()) >= 12
        assert set(verdict["lost"].values()) == {0}
        assert verdict == json.loads(json.dumps(judge(read(history)).to_json()))

    @pytest.mark.stress
    def test_behind_sentinels(self, tmp_path: Path) -> None:
        """Failovers of every kind: with all replicas nothing is lost, and no list is stale unnoticed."""
        arguments = ("--topology", "sentinel", "--replicas", "2", "--lists", "2", "--subscribers", "1", "--rate", "300")
        history = ("--history", str(tmp_path / "history"))
        code, verdict = soak(*arguments, "--events", "2500", "--faults", "8", "--seed", "3", *history, within=250)
        assert (code, verdict["problems"]) == (0, [])
        assert verdict["lists"]["starts"] > 0
        assert verdict["lists"]["lacked"] == verdict["lists"]["told_allows"] == 0

    @pytest.mark.stress
    def test_in_a_cluster(self, tmp_path: Path) -> None:
        """The owner of the slot changes in every way: nothing is lost in silence, and no list is stale unnoticed."""
        arguments = ("--topology", "cluster", "--lists", "1", "--subscribers", "1", "--rate", "300", "--seed", "3")
        faults = (
            "--only",
            "kill owner",
            "--only",
            "migrate slot",
            "--only",
            "migrate keys",
            "--only",
            "cluster failover",
        )
        history = ("--history", str(tmp_path / "history"))
        code, verdict = soak(*arguments, *faults, "--events", "1500", "--faults", "4", *history, within=250)
        assert (code, verdict["problems"]) == (0, [])
        assert verdict["lists"]["starts"] > 0

    @pytest.mark.parametrize(
        ("transport", "fsync"),
        [
            pytest.param("stream", "no", marks=pytest.mark.stress),
            ("group", "everysec"),
        ],
    )
    def test_every_loss_is_reported(self, transport: str, fsync: str, tmp_path: Path) -> None:
        """On a server that loses data when it is killed, every lost event is covered by a gap."""
        arguments = ("--events", "5000", "--faults", "12", "--seed", "21", "--transport", transport, "--fsync", fsync)
        code, verdict = soak(*arguments, "--history", str(tmp_path / "history"), within=150)
        assert (code, verdict["problems"]) == (0, [])
        assert sum(verdict["gaps"].values()) > 0


@contextmanager
def running(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a soak that is in the middle of its faults."""
    arguments = ("--events", "1000000", "--faults", "1000", "--keep", str(directory), "--json")
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            log = directory / "nemesis.0.jsonl"
            block_until(lambda: log.exists() and b'"fault"' in log.read_bytes(), within=30, what="the first fault")
            yield process
        finally:
            process.kill()


class TestEnding:
    """A run leaves no process behind, however it ends."""

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_nothing_is_left(self, how: signal.Signals, tmp_path: Path) -> None:
        """Interrupted, terminated or killed: all its processes end with it, also frozen ones."""
        with running(tmp_path / "run") as process:
            family = set(descendants(process.pid))
            assert len(family) >= 6, "a server, its supervisor, and five workers, one of which may be dead just then"
            process.send_signal(how)
            code = process.wait(timeout=scaled(30))
            assert code == (-how if how is signal.SIGKILL else 130)
            block_until(lambda: not any(map(is_alive, family)), within=15, what="the end of all its processes")


class TestFound:
    """Defects that long runs found, each in its shortest form."""

    async def test_resuming_on_a_server_that_lost_data(self, tmp_path: Path) -> None:
        """A reader that resumes at a position reports that the server was restarted, even if the stream has grown.

        It handles again what was published again, as the server had lost it.
        """
        server = EmbeddedServer(port=free_port(), data_dir=tmp_path)
        async with server, Publisher(RedisStream(server.url, key="k")) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="1"))
            await _restart(server)
            await publisher.publish(TokenRevoked(token_id="2"))
            gaps, handled = await _listen(RedisStream(server.url, key="k", start=str(receipt.position)), "2")
        assert [(gap.since, gap.cause) for gap in gaps] == [(receipt.position, "restarted")]
        assert handled == ["1", "2"]

    async def test_resuming_on_a_new_server(self, tmp_path: Path) -> None:
        """A reader that resumes on a new server that still has its position reports no gap."""
        server = EmbeddedServer(port=free_port(), data_dir=tmp_path)
        async with server, Publisher(RedisStream(server.url, key="k")) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="1"))
            await publisher.publish(TokenRevoked(token_id="2"))
            found = await _listen(RedisStream(server.url, key="k", start=str(receipt.position)), "2")
        assert found == ([], ["2"])

    async def test_a_group_that_was_destroyed(self, tmp_path: Path) -> None:
        """What a dead consumer held is delivered again with the new group, and a gap covers it."""
        server = EmbeddedServer(port=free_port(), data_dir=tmp_path)
        async with server, Publisher(RedisStream(server.url, key="k")) as publisher:
            sharing = partial(RedisStream, server.url, key="k", group="g", start="all", block=0.1)
            async with sharing(consumer="dead").receiver() as receiver:
                first = await publisher.publish(TokenRevoked(token_id="1"))
                while not (await receiver.receive()).deliveries:
                    pass
            gaps: list[Gap] = []
            handled: list[str | None] = []
            subscriber = Subscriber(sharing(consumer="alive"))
            subscriber.on(TokenRevoked)(lambda event: handled.append(event.token_id))
            subscriber.on_gap(gaps.append)
            async with subscriber:
                await publisher.publish(TokenRevoked(token_id="2"))
                await wait_until(lambda: handled == ["2"])
                async with Redis.from_url(server.url) as client:
                    await client.xgroup_destroy("k", "g")
                await wait_until(lambda: set(handled) == {"1", "2"})
        assert [gap.cause for gap in gaps] == ["deleted"]
        assert sort_key(str(gaps[0].since)) < sort_key(str(first.position))


async def _restart(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    await server.aclose()
    await server.__aenter__()


async def _listen(transport: RedisStream, until: str) -> tuple[list[Gap], list[str | None]]:
    """Listen until a token is revoked; return the gaps, and the handled tokens."""
    gaps: list[Gap] = []
    handled: list[str | None] = []
    subscriber = Subscriber(transport)
    subscriber.on(TokenRevoked)(lambda event: handled.append(event.token_id))
    subscriber.on_gap(gaps.append)
    async with subscriber:
        await wait_until(lambda: until in handled)
    return gaps, handled


class TestReconnect:
    """Watermill's reconnect scenario: https://github.com/ThreeDotsLabs/watermill, pubsub/tests/test_pubsub.go."""

    MESSAGES, PUBLISHERS, RESTARTS = 10_000, 100, 2

    async def test_nothing_is_lost_across_restarts(self, tmp_path: Path) -> None:
        """A hundred tasks publish ten thousand events while the server is killed twice: each is handled once."""
        config = {"appendonly": "yes", "appendfsync": "always"}
        server = EmbeddedServer(port=free_port(), data_dir=tmp_path, config=config)
        handled: Counter[str] = Counter()
        published: set[str] = set()
        numbers = iter(range(self.MESSAGES))

        async def publish_until_accepted(publisher: Publisher) -> None:
            for number in numbers:
                event = TokenRevoked(token_id=f"token-{number}")
                while event.id not in published:
                    with suppress(PublishError):  # publishing the same event again is safe
                        published.add((await publisher.publish(event)).event_id)

        async with server:
            transport = RedisStream(server.url, key="reconnect")
            subscriber = Subscriber(transport)

            @subscriber.on()
            async def count(event: Event) -> None:
                handled[event.id] += 1

            async with subscriber, Publisher(transport) as publisher, asyncio.TaskGroup() as tasks:
                for _ in range(self.PUBLISHERS):
                    tasks.create_task(publish_until_accepted(publisher))
                for part in range(1, self.RESTARTS + 1):
                    due = part * self.MESSAGES // (self.RESTARTS + 1)
                    await wait_until(partial(_has, published, due), within=60, what=f"{due} events")
                    await _restart(server)
                await wait_until(partial(_has, published, self.MESSAGES), within=60, what="the last event")
                await wait_until(lambda: handled.keys() >= published, within=30, what="the last handler")
            assert (subscriber.stats.gaps, subscriber.stats.failed) == (0, 0)
        assert handled == Counter(published)


def _has(collection: Collection[str], count: int) -> bool:
    return len(collection) >= count
