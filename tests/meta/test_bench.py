"""The bench: that all are given the same, that its arithmetic is right, and that nobody's failure is hidden."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bench import load, table
from bench.contend import run_once
from bench.contenders import Contender
from bench.report import Report
from bench.results import Result, Results, Spread, complaints, judge, ratio
from bench.rows import ROWS, Floor, Row, named
from bench.run import Failed, Place, Run, limited, shared_out
from jwt_events import Publisher, RedisStream
from tests.support.raw import entries

ROOT = Path(__file__).parents[2]
OURS, OTHER = "jwt_events stream", "somebody"
PLACE = Place("redis://nowhere", "name", "shared", limit=0.05)


def row(*floors: Floor) -> Row:
    """A row with two contenders."""
    nothing = named("check").contenders[0].start
    return Row("row", "some work", "µs", [Contender(OURS, nothing), Contender(OTHER, nothing)], floors)


def results(ours: list[Run], other: list[Run]) -> Results:
    """What they were measured at, without a round that warms up."""
    return {OURS: Result.of([Run(0.0), *ours]), OTHER: Result.of([Run(0.0), *other])}


class TestLoad:
    """Everybody sends and reads the same."""

    async def test_the_bytes_of_others_are_those_of_ours(self, url: str, key: str, client: Redis) -> None:
        """What a bare client sends is, byte for byte, what our publisher makes of the same event."""
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

    def test_models_say_the_same(self) -> None:
        """What peers publish and validate is the same event."""
        assert load.message(5).data.token_id == load.event(5).token_id
        assert load.message(5).data.expires_at == load.event(5).expires_at

    def test_who_is_missing_is_counted_once(self) -> None:
        """A duplicate does not make good for one that was lost."""
        tally = load.Counters(3)
        assert [tally.note(f"{number:032x}") for number in (0, 1, 1)] == [True, True, False]
        assert tally.missing == 1


class TestResults:
    """Medians, ratios, floors."""

    def test_a_spread_is_a_median_and_its_quartiles(self) -> None:
        """Outliers do not move it."""
        assert Spread.of([5.0, 1.0, 2.0, 3.0, 1_000.0]) == Spread(2.0, 3.0, 5.0)
        assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)

    def test_the_round_that_warms_up_does_not_count(self) -> None:
        """It does where it is the only one."""
        assert Result.of([Run(9.0), Run(1.0)]).value == Spread(1.0, 1.0, 1.0)
        assert Result.of([Run(9.0)]).value == Spread(9.0, 9.0, 9.0)

    def test_a_ratio_is_of_the_same_round(self) -> None:
        """A round in which the machine was busy is busy for both."""
        found = results([Run(1.0), Run(10.0), Run(2.0)], [Run(3.0), Run(30.0), Run(6.0)])
        assert ratio(found, OTHER, OURS) == Spread(3.0, 3.0, 3.0)

    @pytest.mark.parametrize(("least", "kept"), [(3.0, True), (3.1, False)])
    def test_a_floor_is_a_ratio(self, least: float, kept: bool) -> None:
        """The other must take so many times as long."""
        found = results([Run(1.0)], [Run(3.0)])
        assert judge(Floor(OURS, least, OTHER), found).kept is kept
        assert bool(complaints(row(Floor(OURS, least, OTHER)), found)) is not kept

    @pytest.mark.parametrize(("most", "kept"), [(1.0, True), (0.9, False)])
    def test_a_floor_is_a_limit(self, most: float, kept: bool) -> None:
        """Or the value itself must not be larger."""
        assert judge(Floor(OURS, most=most), results([Run(1.0)], [Run(3.0)])).kept is kept

    def test_floors_of_a_quick_look_are_not_complained_of(self) -> None:
        """But our own failures are."""
        missed, lost = Floor(OURS, most=0.1), [Run(problem="3 events missing")]
        assert complaints(row(missed), results([Run(1.0)], [Run(3.0)]), floors=False) == []
        assert complaints(row(missed), results(lost, [Run(3.0)]), floors=False) == [
            f"some work: {OURS}: 3 events missing"
        ]

    def test_a_peer_that_fails_has_no_figures(self) -> None:
        """Whoever loses messages in any round is not fast; that is told, and is no failure of ours."""
        found = results([Run(1.0), Run(1.0)], [Run(3.0), Run(problem="lost 3")])
        floor = Floor(OURS, 10.0, OTHER)
        assert (found[OTHER].value, found[OTHER].problem) == (None, "lost 3")
        assert complaints(row(floor), found) == []
        assert judge(floor, found).reached is None

    def test_without_figures_of_ours_no_floor_is_reached(self) -> None:
        """Failing is no way to keep a promise."""
        found = results([Run(problem="hung")], [Run(3.0)])
        assert len(complaints(row(Floor(OURS, 10.0, OTHER)), found)) == 2


class TestRows:
    """The table of rows fits together."""

    def test_floors_are_of_contenders(self) -> None:
        """Each names those who take part in its row."""
        for found in ROWS:
            names = {contender.name for contender in found.contenders}
            assert len(names) == len(found.contenders)
            assert {floor.name for floor in found.floors} <= names
            assert {floor.against for floor in found.floors} - {None} <= names

    def test_names_are_unique(self) -> None:
        """A row is found by its name."""
        names = [found.id for found in ROWS]
        assert len(set(names)) == len(names)


class TestRuns:
    """Whatever goes wrong in a run is its result."""

    async def test_too_late(self) -> None:
        """What comes to no end is cut off, and says what is missing."""

        async def work(place: Place) -> Run:
            tally = load.Counters(2)
            tally.note("1")
            async with limited(place, tally):
                await asyncio.Event().wait()
            return Run(1.0)

        assert (await run_once(work, PLACE)).problem == "no end after 0.05 s, 1 events missing"

    async def test_an_exception_in_one_of_many_tasks(self) -> None:
        """The first of them is told, not the group that it came in."""

        async def refuse(item: object) -> None:
            raise ValueError(f"no {item}")

        async def work(_: Place) -> Run:
            await shared_out(refuse, ["events"], 1)
            return Run(1.0)

        assert (await run_once(work, PLACE)).problem == "ValueError: no events"

    async def test_events_that_are_lost(self) -> None:
        """A failure that the work itself found is told as it is."""

        async def work(_: Place) -> Run:
            raise Failed("3 events missing")

        assert (await run_once(work, PLACE)).problem == "3 events missing"

    def test_a_quick_look_does_less(self) -> None:
        """But never less than makes sense."""
        assert replace(PLACE, scale=0.1).many(10_000) == 1_000
        assert replace(PLACE, scale=0.1).many(500) == 200
        assert replace(PLACE, scale=0.1).many(100) == 100


class TestTable:
    """The table in the README, and what is kept of a run."""

    REPORT = Report(
        {"machine": "a fast one"},
        {"check": {"RevocationList.check": [Run(0.5), Run(0.5)], "redis-py EXISTS": [Run(problem="a|b\nc")]}},
    )

    def test_it_is_written_between_its_markers(self, tmp_path: Path) -> None:
        """Twice the same; everything around it stays."""
        path = tmp_path / "README.md"
        path.write_text("before\n<!-- written by `make bench` -->\nold\n<!-- end -->\nafter\n")
        for _ in range(2):
            table.write(self.REPORT, path)
        text = path.read_text()
        assert text.startswith("before\n<!-- written")
        assert text.endswith("<!-- end -->\nafter\n")
        assert "old" not in text
        assert "- machine: a fast one" in text
        assert "| RevocationList.check | 0.50 | 0.50 to 0.50 |" in text

    def test_failures_are_loud(self) -> None:
        """They stand out, in one cell, and say why."""
        assert "| **FAILED** |  |  |  | a\\|b c |" in table.markdown(self.REPORT)

    def test_a_file_without_a_place_for_it_is_left_alone(self, tmp_path: Path) -> None:
        """Nothing is appended anywhere."""
        path = tmp_path / "README.md"
        path.write_text("before\n")
        with pytest.raises(ValueError, match="no place for the table"):
            table.write(self.REPORT, path)
        assert path.read_text() == "before\n"

    def test_the_readme_has_a_place_for_it(self) -> None:
        """`make bench` writes there."""
        assert (ROOT / "bench" / "README.md").read_text().count("<!-- written by `make bench` -->\n") == 1

    def test_a_run_can_be_kept(self, tmp_path: Path) -> None:
        """And read again."""
        path = tmp_path / "run.json"
        self.REPORT.save(path)
        assert Report.load(path) == self.REPORT


async def test_the_command_measures_a_row(tmp_path: Path) -> None:
    """A quick look at one row, with processes of its own and a server: a table, all runs as JSON, and success."""
    kept = tmp_path / "run.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "--quick", "--only", "check", "--json", kept,
        cwd=ROOT, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert (process.returncode, b"FAILED" in output) == (0, False), output.decode() + errors.decode()
    runs = json.loads(kept.read_text())["runs"]["check"]
    assert {name: len(found) for name, found in runs.items()} == {"RevocationList.check": 3, "redis-py EXISTS": 3}
