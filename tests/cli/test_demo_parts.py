"""The parts of the demo, without processes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from xml.etree import ElementTree

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.demo import TARGET, Film
from jwt_events import EventType, MemoryTransport, RevocationList, TokenRevoked
from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._display import to_json
from jwt_events.cli.demo._issuer import Progress, make_event, remark_on
from jwt_events.cli.demo._messages import (
    ALLOWED,
    KINDS,
    REVOKED,
    STALE,
    Latencies,
    Rebuilt,
    Report,
    Revoked,
    Setup,
    from_line,
    to_line,
)
from jwt_events.cli.demo._service import Authenticator, Counters, choose_tokens
from jwt_events.cli.demo._tokens import SigningKey, TokenIssuer, Verifier
from jwt_events.cli.demo._trial import Trial
from jwt_events.envelope import Envelope, decode, encode

PASSWORD = "correct-horse-battery"


class TestMix:
    """The mix of events in the first act."""

    def test_all_types_come_first(self) -> None:
        """The first five events are of five types."""
        assert {make_event(number).type for number in range(5)} == set(EventType)

    @pytest.mark.parametrize("step", [1, 10, 100, 1_000])
    def test_samples_show_all_types(self, step: int) -> None:
        """A sample of every tenth, hundredth or thousandth event still has all types."""
        assert {make_event(number * step).type for number in range(19)} == set(EventType)

    def test_events_are_real(self) -> None:
        """Each can be encoded, has an id of its own, and is needed for an hour at most."""
        events = [make_event(number) for number in range(200)]
        assert len({event.id for event in events}) == 200
        for event in events:
            assert decode(encode(Envelope(event), source="demo")).event.id == event.id
            assert (event.needed_until or event.occurred_at) <= event.occurred_at + timedelta(hours=1)

    def test_remarks_show_no_identifier(self) -> None:
        """The remark on an event does not contain an identifier."""
        events = [make_event(number) for number in range(19)]
        assert any(remark_on(event) for event in events)
        assert not any(event.subject and event.subject in remark_on(event) for event in events)


class TestNumbers:
    """Counters, latencies and progress."""

    @given(st.lists(st.integers(0, 999), min_size=1), st.integers(1, 100))
    def test_percentile(self, values: list[int], percent: int) -> None:
        """A percentile is the value at the nearest rank."""
        latencies = Latencies()
        for value in values:
            latencies.record(value)
        assert latencies.percentile(percent) == sorted(values)[math.ceil(len(values) * percent / 100) - 1]

    def test_percentile_of_nothing(self) -> None:
        """Without values there is no percentile."""
        assert Latencies().percentile(50) is None

    def test_latencies_stay_small(self) -> None:
        """Latencies are kept with three digits, and a negative one counts as zero."""
        latencies = Latencies()
        assert latencies.record(1.23456) == latencies.record(1.2349) == 1.23
        assert latencies.record(-5.0) == 0.0
        assert latencies == {1.23: 2, 0.0: 1}

    def test_counters(self) -> None:
        """An event counts once, however often it is delivered."""
        counters = Counters()
        now = datetime.now(UTC)
        event = TokenRevoked(token_id="t", occurred_at=now - timedelta(milliseconds=2))
        for _ in range(3):
            counters.add(event, now)
        assert counters.report() == Report(count=1, latency_ms=2.0)
        assert counters.final_report() == Report(count=1, latency_ms=2.0, final=True, latencies=((2.0, 1),))

    @pytest.mark.parametrize(("rate", "due"), [(10, [0.0, 0.1, 0.2]), (0, [0.0, 0.0, 0.0])])
    def test_progress(self, rate: int, due: list[float]) -> None:
        """Events are due at equal intervals, or all at once; after the last there is none."""
        progress = Progress(Setup("", "stream", "", 3, rate))
        planned = list(iter(progress.next_due, None))
        assert [number for number, _ in planned] == [0, 1, 2]
        assert [when for _, when in planned] == pytest.approx(due)

    def test_progress_reports_each_event_once(self) -> None:
        """The most recent event is in one report, without its identifiers."""
        progress = Progress(Setup("", "stream", "", 3, 0))
        progress.add(TokenRevoked(token_id="secret", reason="device lost"))
        report = progress.report()
        assert report.count == 1
        assert report.recent is not None
        assert (report.recent[0], report.recent[2]) == ("token_revoked", "device lost")
        assert "secret" not in report.recent
        assert progress.report() == Report(count=1)

    def test_order_hides_the_url(self) -> None:
        """The repr does not contain the URL, which may contain a password."""
        assert PASSWORD not in repr(Setup(f"redis://:{PASSWORD}@host", "stream", "key", 1, 1))


class TestBoard:
    """The state of a run."""

    def test_rate(self) -> None:
        """The rate is that of the last second."""
        row = Row("api")
        assert row.rate == 0
        for now, number in [(100.0, 0), (100.5, 400), (101.0, 800), (101.5, 1_000)]:
            row.add(Report(count=number), now)
        assert row.rate == 600

    def test_lost(self) -> None:
        """Lost events are those published and not handled, over all services."""
        board = Board(10, Row("issuer"), [Row("api"), Row("billing"), Row("websocket")])
        for row, number in zip(board.rows, (10, 10, 7, 9), strict=True):
            board.apply(row, Report(count=number), 0.0)
        assert [board.lost_by(row) for row in board.services] == [0, 3, 1]
        assert board.lost == 4

    def test_feed_can_be_read(self) -> None:
        """The feed takes only as many events as a person can read, and keeps the last few."""
        board = Board(10, Row("issuer"), [])
        for tick in range(32):
            board.apply(board.issuer, Report(count=tick, recent=("token_revoked", f"#{tick}", "")), 1 + tick / 8)
        assert [entry[2] for entry in board.feed] == ["#15", "#18", "#21", "#24", "#27", "#30"]

    def test_ended(self) -> None:
        """A process that ended without a final report has died; one that sent it has finished."""
        row = Row("api", exited=True)
        assert row.finished
        assert row.died
        row.add(Report(final=True), 0.0)
        assert row.finished
        assert not row.died


def trial_of(*responses: tuple[int, int, float], services: Sequence[str] = ("api",), each: int = 1) -> Trial:
    """A trial in which token 0 was revoked at 10 s, which the server acknowledged half a second later."""
    trial = Trial(services, each=each, max_staleness=1.0)
    trial.add_revoked(Revoked(0, 10.0, 10.5))
    trial.add_responses("api", responses)
    return trial


class TestTrial:
    """How responses to revoked tokens are judged."""

    def test_refused_after(self) -> None:
        """A token counts as refused from the first refusal on, in milliseconds since ``publish`` was called."""
        trial = trial_of((0, ALLOWED, 10.1), (0, REVOKED, 10.2), (0, REVOKED, 10.3))
        assert trial.refused_after() == {200.0: 1}
        assert trial.not_refused == 0

    def test_refused_and_let_in(self) -> None:
        """A token that is let in after it was refused was not refused before."""
        trial = trial_of((0, REVOKED, 10.2), (0, ALLOWED, 10.3))
        assert (trial.refused_after(), trial.not_refused) == ({}, 1)
        trial.add_responses("api", [(0, REVOKED, 10.4)])
        assert trial.refused_after() == {400.0: 1}
        assert trial.reversals == 1

    def test_stale_is_not_a_refusal(self) -> None:
        """A stale response is not a refusal, and does not end one."""
        trial = trial_of((0, STALE, 10.2))
        assert trial.not_refused == 1
        trial.add_responses("api", [(0, REVOKED, 10.3), (0, STALE, 10.4)])
        assert trial.refused_after() == {300.0: 1}

    @pytest.mark.parametrize(("at", "expected"), [(10.4, 0), (11.5, 0), (11.501, 1), (99.0, 1)])
    def test_stale_allows(self, at: float, expected: int) -> None:
        """Letting a token in is a stale allow when its revocation was acknowledged more than a second before."""
        assert trial_of((0, ALLOWED, at)).stale_allows == expected

    def test_each_stale_allow_counts(self) -> None:
        """Every response of every service counts, and only those to revoked tokens."""
        late = [(number, ALLOWED, 12.0 + number + turn / 10) for turn in range(3) for number in range(4)]
        trial = trial_of(*late, services=("api", "billing"))
        trial.add_responses("billing", late[:1])
        assert trial.stale_allows == 4

    def test_responses_may_come_first(self) -> None:
        """A response that is reported before the revocation is judged too."""
        trial = Trial(["api"], each=1, max_staleness=1.0)
        trial.add_responses("api", [(1, ALLOWED, 12.0), (1, REVOKED, 12.1)])
        trial.add_revoked(Revoked(1, 10.0, 10.5))
        assert (trial.stale_allows, trial.refused_after()) == (1, {2_100.0: 1})

    def test_kinds(self) -> None:
        """Tokens are numbered kind by kind, and the last one is good."""
        trial = trial_of((0, REVOKED, 10.2), (3, ALLOWED, 10.2), (6, STALE, 10.2), each=2)
        assert trial.statuses("api") == ([REVOKED, None], [None, ALLOWED], [None, None], [STALE])
        assert [trial.revoked(kind) for kind in KINDS] == [1, 0, 0]
        assert trial.refused_after(kind="user") == {}

    def test_outage(self) -> None:
        """An outage lasts until the last service has noticed its beginning or its end."""
        trial = Trial(["api", "billing"], each=0, max_staleness=1.0)
        assert (trial.stale_after_ms, trial.stale_for_ms, trial.fresh_again_after_ms) == (None, None, None)
        trial.killed_at, trial.back_at = 20.0, 22.0
        trial.add_responses("api", [(0, STALE, 19.0), (0, ALLOWED, 19.5), (0, STALE, 20.5), (0, ALLOWED, 22.25)])
        trial.add_responses("billing", [(0, STALE, 20.75), (0, STALE, 22.25), (0, ALLOWED, 22.5)])
        assert (trial.stale_after_ms, trial.stale_for_ms, trial.fresh_again_after_ms) == (750.0, 2_000.0, 500.0)

    def test_tried_again(self) -> None:
        """Responses count once all services have rebuilt their lists after they were told to."""
        trial = Trial(["api"], each=0, max_staleness=1.0)
        trial.add_rebuilt("api", Rebuilt(20.0))
        trial.add_responses("api", [(0, ALLOWED, 30.5)])
        assert not trial.tried_again
        trial.rebuilding_at = 30.0
        assert not trial.tried_again
        trial.add_rebuilt("api", Rebuilt(31.0))
        assert not trial.tried_again
        trial.add_responses("api", [(0, ALLOWED, 31.5)])
        assert trial.tried_again

    @pytest.mark.parametrize("status", [ALLOWED, STALE])
    def test_failure(self, status: int) -> None:
        """A demo has failed if a revoked token was let in, or never refused."""
        board = Board(0, Row("issuer"), [Row("api")], trial=trial_of((0, status, 12.0)))
        assert board.failed
        assert json.loads(to_json(board, "stream"))["not_refused"] == 1

    def test_success(self) -> None:
        """A demo has not failed if all revoked tokens were refused."""
        assert not Board(0, Row("issuer"), [Row("api")], trial=trial_of((0, REVOKED, 10.2))).failed


class TestTokens:
    """The tokens of the second act."""

    def test_real(self) -> None:
        """Tokens are signed, and a token with another signature is refused."""
        ours, theirs = SigningKey("main"), SigningKey("main")
        verifier = Verifier([ours.public()])
        assert verifier.claims(ours.sign({"sub": "joe"})) == {"sub": "joe", "kid": "main"}
        with pytest.raises(jwt.InvalidSignatureError):
            verifier.claims(theirs.sign({"sub": "joe"}))

    async def test_each_revocation_is_about_one(self) -> None:
        """Each token is let in until it is revoked, and its revocation covers no other token."""
        issuer = TokenIssuer(2)
        issued = issuer.issue()
        async with RevocationList(MemoryTransport()) as revocations:
            authenticator = Authenticator(Verifier(issued.keys), revocations)
            statuses = [ALLOWED] * 7
            assert list(map(authenticator.status, issued.tokens)) == statuses
            for kind in KINDS:
                for number, event in issuer.revocations(kind):
                    revocations.apply(event)
                    statuses[number] = REVOKED
                    assert list(map(authenticator.status, issued.tokens)) == statuses
        statuses[-1] = STALE
        assert list(map(authenticator.status, issued.tokens)) == statuses

    def test_clients(self) -> None:
        """Most requests come with the first token that still works, and every token is used again and again."""
        refused: set[int] = set()
        chosen = choose_tokens(3, refused)
        assert list(islice(chosen, 12)) == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
        refused.add(0)
        assert list(islice(chosen, 4)) == [1, 1, 1, 0]

    def test_hidden(self) -> None:
        """The repr contains no token."""
        issued = TokenIssuer(1).issue()
        assert not any(token in repr(issued) for token in issued.tokens)

    def test_messages(self) -> None:
        """A message is decoded as it was encoded."""
        issued = TokenIssuer(1).issue()
        for message in (issued, Revoked(1, 2.0, 3.5), Setup("unix:///s", "stream", "key", 1, 1.0), Report(count=3)):
            arrived = from_line(to_line(message))
            assert type(arrived) is type(message)
            assert to_line(arrived) == to_line(message)


class TestFilm:
    """The picture of the demo in the README."""

    def test_frames_stand_below_one_another(self) -> None:
        """Each frame has the height of the highest, each is shown in its time, and the last one where nothing moves."""
        film = Film()
        for moment, frame in enumerate(("one", "two\nthree", "four")):
            film.take(frame, float(moment))
        drawn = film.develop()
        ElementTree.fromstring(drawn)
        rows = {word: int(float(y) // 24.4) for y, word in re.findall(r'y="([\d.]+)" textLength="[^>]+>(\w+)', drawn)}
        assert rows == {"one": 0, "two": 2, "three": 3, "four": 4}
        moves = re.findall(r"([\d.]+)% { transform: translateY\(-(\d+)px\) }", drawn)
        assert moves == [("0.00", "0"), ("10.00", "49"), ("20.00", "98")]
        assert 'transform="translate(0,-98)"' in drawn

    def test_the_one_that_is_shown(self) -> None:
        """It comes from a run that succeeded."""
        drawn = TARGET.read_text().replace("\u00a0", " ")
        ElementTree.fromstring(drawn)
        assert "✓ Every service refused every revoked token; none was let in too late." in drawn
