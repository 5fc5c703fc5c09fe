"""The benchmark: equal events for all competitors, correct arithmetic, and no hidden failure."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bench import fanout, fanout_frozen, fanout_model, folding, load, table
from bench.competitors import Competitor
from bench.report import Report
from bench.results import Result, Results, Spread, failures, judge, ratio
from bench.rows import ROWS, Floor, Row, named
from bench.run import Failed, Run, RunParams, run_concurrently, time_limit
from bench.worker import run_once
from jwt_events import Publisher, RedisStream
from jwt_events.embedded import EmbeddedServer
from tests.support.raw import entries
from tests.support.waiting import scaled

ROOT = Path(__file__).parents[2]
OURS, OTHER = "jwt_events stream", "another library"
PARAMS = RunParams("redis://nowhere", "name", "shared", limit=0.05)


def row(*floors: Floor) -> Row:
    """A row with two competitors."""
    nothing = named("check").competitors[0].start
    return Row("row", "some workload", "µs", [Competitor(OURS, nothing), Competitor(OTHER, nothing)], floors)


def results(ours: list[Run], other: list[Run]) -> Results:
    """Results of two competitors, each with a warm-up run before the given runs."""
    return {OURS: Result.of([Run(0.0), *ours]), OTHER: Result.of([Run(0.0), *other])}


class TestLoad:
    """All competitors send and read the same events."""

    async def test_a_bare_client_sends_the_bytes_of_ours(self, url: str, key: str, client: Redis) -> None:
        """A bare client sends, byte for byte, what our publisher makes of the same event."""
        async with Publisher(RedisStream(url, key=key, retention=load.RETENTION), source=load.SOURCE) as publisher:
            await publisher.publish_many([load.event(number, padding) for number, padding in ((7, 0), (61, 100))])
        sent = [fields[b"event"] for _, fields in await entries(client, key)]
        assert sent == [load.payload(7), load.payload(61, 100)]

    async def test_the_server_makes_the_same_events(self, key: str, client: Redis) -> None:
        """A stream that the server filled by itself holds the bytes that clients would have sent."""
        await load.fill(client, key, 150)
        made = [fields[b"event"] for _, fields in await entries(client, key)]
        assert made == [load.payload(number) for number in range(150)]
        await load.fill(client, key, 3)
        assert len(await entries(client, key)) == 3

    def test_models_are_the_same_event(self) -> None:
        """The model that other libraries publish and validate is the same event."""
        assert load.message(5).data.token_id == load.event(5).token_id
        assert load.message(5).data.expires_at == load.event(5).expires_at

    def test_an_arrival_is_counted_once(self) -> None:
        """A duplicate does not make up for a lost event."""
        arrivals = load.Arrivals(3)
        assert [arrivals.add(f"{number:032x}") for number in (0, 1, 1)] == [True, True, False]
        assert arrivals.missing == 1


class TestResults:
    """Medians, ratios, floors."""

    def test_a_spread_is_a_median_and_its_quartiles(self) -> None:
        """Outliers do not move the median."""
        assert Spread.of([5.0, 1.0, 2.0, 3.0, 1_000.0]) == Spread(2.0, 3.0, 5.0)
        assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)

    def test_the_warm_up_does_not_count(self) -> None:
        """The warm-up run counts only if it is the only run."""
        assert Result.of([Run(9.0), Run(1.0)]).value == Spread(1.0, 1.0, 1.0)
        assert Result.of([Run(9.0)]).value == Spread(9.0, 9.0, 9.0)

    def test_a_ratio_is_of_the_same_round(self) -> None:
        """A ratio compares runs of the same round: a busy machine slows both."""
        found = results([Run(1.0), Run(10.0), Run(2.0)], [Run(3.0), Run(30.0), Run(6.0)])
        assert ratio(found, OTHER, OURS) == Spread(3.0, 3.0, 3.0)

    @pytest.mark.parametrize(("minimum", "passed"), [(3.0, True), (3.1, False)])
    def test_a_floor_is_a_ratio(self, minimum: float, passed: bool) -> None:
        """The other competitor must take at least `minimum` times as long."""
        found = results([Run(1.0)], [Run(3.0)])
        assert judge(Floor(OURS, minimum, OTHER), found).passed is passed
        assert bool(failures(row(Floor(OURS, minimum, OTHER)), found)) is not passed

    @pytest.mark.parametrize(("maximum", "passed"), [(1.0, True), (0.9, False)])
    def test_a_floor_is_a_limit(self, maximum: float, passed: bool) -> None:
        """Without another competitor the value must be at most `maximum`."""
        assert judge(Floor(OURS, maximum=maximum), results([Run(1.0)], [Run(3.0)])).passed is passed

    def test_a_smoke_test_checks_no_floors(self) -> None:
        """A smoke test reports our failures, and no missed floor."""
        missed, lost = Floor(OURS, maximum=0.1), [Run(problem="3 events missing")]
        assert failures(row(missed), results([Run(1.0)], [Run(3.0)]), floors=False) == []
        assert failures(row(missed), results(lost, [Run(3.0)]), floors=False) == [
            f"some workload: {OURS}: 3 events missing"
        ]

    def test_a_library_that_fails_has_no_value(self) -> None:
        """A library that loses messages in any round has no value; the benchmark does not fail by it."""
        found = results([Run(1.0), Run(1.0)], [Run(3.0), Run(problem="lost 3")])
        floor = Floor(OURS, 10.0, OTHER)
        assert (found[OTHER].value, found[OTHER].problem) == (None, "lost 3")
        assert failures(row(floor), found) == []
        assert judge(floor, found).reached is None

    def test_our_failure_misses_a_floor(self) -> None:
        """A floor is missed if our own competitor fails."""
        found = results([Run(problem="hung")], [Run(3.0)])
        assert len(failures(row(Floor(OURS, 10.0, OTHER)), found)) == 2


class TestRows:
    """The rows are consistent."""

    def test_floors_name_competitors(self) -> None:
        """Each floor names competitors of its row."""
        for found in ROWS:
            names = {competitor.name for competitor in found.competitors}
            assert len(names) == len(found.competitors)
            assert {floor.name for floor in found.floors} <= names
            assert {floor.against for floor in found.floors} - {None} <= names

    def test_names_are_unique(self) -> None:
        """The id of a row is unique."""
        names = [found.id for found in ROWS]
        assert len(set(names)) == len(names)


class TestRuns:
    """Every failure becomes the problem of a run."""

    async def test_a_run_beyond_its_limit(self) -> None:
        """A run that exceeds its limit is cancelled, and reports the missing events."""

        async def workload(params: RunParams) -> Run:
            arrivals = load.Arrivals(2)
            arrivals.add("1")
            async with time_limit(params, arrivals):
                await asyncio.Event().wait()
            return Run(1.0)

        assert (await run_once(workload, PARAMS)).problem == "no end after 0.05 s, 1 events missing"

    async def test_an_exception_in_one_of_many_tasks(self) -> None:
        """An exception of a task is reported, not the group that it was raised in."""

        async def reject(item: object) -> None:
            raise ValueError(f"no {item}")

        async def workload(_: RunParams) -> Run:
            await run_concurrently(reject, ["events"], 1)
            return Run(1.0)

        assert (await run_once(workload, PARAMS)).problem == "ValueError: no events"

    async def test_events_that_are_lost(self) -> None:
        """The message of `Failed` is reported unchanged."""

        async def workload(_: RunParams) -> Run:
            raise Failed("3 events missing")

        assert (await run_once(workload, PARAMS)).problem == "3 events missing"

    def test_a_smoke_test_does_less(self) -> None:
        """A smoke test does less, but not less than the minimum."""
        assert replace(PARAMS, scale=0.1).scaled(10_000) == 1_000
        assert replace(PARAMS, scale=0.1).scaled(500) == 200
        assert replace(PARAMS, scale=0.1).scaled(100) == 100


class TestTable:
    """The table in the README, and the JSON file of a run."""

    REPORT = Report(
        {"machine": "a fast one"},
        {"publish-one-stream": {OURS: [Run(0.5), Run(0.5)], "redis-py stream": [Run(problem="a|b\nc")]}},
    )

    def test_it_is_written_between_its_markers(self, tmp_path: Path) -> None:
        """Writing is idempotent, and leaves everything around the table."""
        path = tmp_path / "README.md"
        path.write_text("before\n<!-- written by `make bench` -->\nold\n<!-- end -->\nafter\n")
        for _ in range(2):
            table.write(self.REPORT, path)
        text = path.read_text()
        assert text.startswith("before\n<!-- written")
        assert text.endswith("<!-- end -->\nafter\n")
        assert "old" not in text
        assert "- machine: a fast one" in text
        assert f"| {OURS} | 0.50 | 0.50 to 0.50 |" in text

    def test_failures_are_emphasised(self) -> None:
        """A failure is emphasised, in one cell, with its reason."""
        assert "| **FAILED** |  |  |  | a\\|b c |" in table.markdown(self.REPORT)

    def test_a_file_without_markers_is_unchanged(self, tmp_path: Path) -> None:
        """A file without markers is unchanged."""
        path = tmp_path / "README.md"
        path.write_text("before\n")
        with pytest.raises(ValueError, match="no markers for the table"):
            table.write(self.REPORT, path)
        assert path.read_text() == "before\n"

    def test_the_readme_has_markers(self) -> None:
        """bench/README.md has the markers of the table once."""
        assert (ROOT / "bench" / "README.md").read_text().count("<!-- written by `make bench` -->\n") == 1

    def test_a_report_can_be_saved(self, tmp_path: Path) -> None:
        """A report that was saved can be loaded again."""
        path = tmp_path / "run.json"
        self.REPORT.save(path)
        assert Report.load(path) == self.REPORT


async def test_the_command_measures_a_row(tmp_path: Path) -> None:
    """A smoke test of one row, with real processes and a server: a table, all runs as JSON, and exit code 0."""
    passed = tmp_path / "run.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "--quick", "--only", "check", "--json", passed,
        cwd=ROOT, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert (process.returncode, b"FAILED" in output) == (0, False), output.decode() + errors.decode()
    runs = json.loads(passed.read_text())["runs"]["check"]
    assert {name: len(found) for name, found in runs.items()} == {
        "RevocationList.check": 3,
        "RevocationList.check, 100 rules about claims": 3,
        "a set, asked for each claim": 3,
        "redis-py EXISTS": 3,
    }


class TestFanOut:
    """What fan-out costs."""

    @pytest.mark.parametrize("paced", [False, True])
    @pytest.mark.parametrize("simulated", [False, True])
    async def test_it_is_measured(self, monkeypatch: pytest.MonkeyPatch, simulated: bool, paced: bool) -> None:
        """A smoke test of one point, with real processes and a server: readers are woken, and events take some time."""
        monkeypatch.setattr(fanout, "SETTLED", 0.5)
        monkeypatch.setattr(fanout, "SECONDS", 2.0)
        monkeypatch.setattr(fanout, "ALONE", 0.5)
        found = await fanout.measure(fanout.Point(12, 50.0, simulated), paced=paced)
        assert 0 < found.wakeups < 100
        assert 0 < found.p50 <= found.p99

    async def test_a_frozen_replica_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A smoke test, with real processes and servers: all readers leave the replica, and none is wrong."""
        monkeypatch.setattr(fanout_frozen, "SECONDS", 0.5)
        monkeypatch.setattr(fanout_frozen, "FROZEN", scaled(10.0))
        found = await fanout_frozen.measure(4, 10.0)
        assert found["all have left after"] < fanout_frozen.FROZEN
        assert found["staleness"] > 0
        assert found["wrong"] == 0

    def test_the_table_is_what_the_model_says(self) -> None:
        """The documents show the table of the present model."""
        text = (ROOT / "docs" / "operations.md").read_text()
        _, _, rest = text.partition("<!-- written by `python -m bench.fanout --table` -->\n")
        shown, _, _ = rest.partition("<!-- end -->")
        assert shown.splitlines()[2:] == fanout_model.table()

    def test_readers_that_lag(self) -> None:
        """What was measured is carried to more wake-ups and more events, up to one core."""
        found = fanout_model.Cost(0.26, wakeups=100, p50=1, p99=2, rate=500, primary=0.26, writes=0.03)
        assert found.at(100, 500, readers=100) == pytest.approx(0.26)
        assert found.at(20, 500, readers=100) == pytest.approx(0.03 + 0.04 + 0.03)
        assert found.at(20, 1000, readers=100) == pytest.approx(0.03 + 0.04 + 0.06)
        assert found.at(1000, 1000, readers=100) == 1.0

    def test_pauses_save_and_servers_suffice(self) -> None:
        """Pauses never cost more; with the servers of the table none is too slow, and no event later than 100 ms."""
        for readers in (1, 10, 100, 1_000, 10_000):
            for rate in (10, 100, 1_000):
                paced, unpaced = (fanout_model.fan_out(readers, rate, paced=paced) for paced in (True, False))
                assert paced.core <= unpaced.core
                share = fanout_model.fan_out(-(-readers // fanout_model.servers(readers, rate)), rate)
                assert share.core < 1
                assert share.p99 < 100


class TestFolding:
    """What folding costs."""

    async def test_it_is_measured(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A smoke test: all is folded and costs something, and what is published beside it takes some time."""
        async with own_server(port=0) as server:
            for make in (folding.about_a_token, folding.about_a_user):
                own, servers = await folding.measure_cost(server.url, [make() for _ in range(300)])
                assert own > 0
                assert servers >= 0
            found = await folding.measure_delay(server.url, windows=1, seconds=4.0, rate=50, folded=6_000)
        assert found["folded_per_minute"] > 0
        assert 0 < found["alone_p50_ms"] <= found["alone_p99_ms"]
        assert 0 < found["folding_p50_ms"] <= found["folding_p99_ms"]
