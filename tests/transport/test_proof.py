"""What proves that a server is the primary. Pure: for all that servers, replicas and Sentinels can say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import NotProven
from jwt_events.metrics._instruments import _DOUBTS
from jwt_events.revocation._feed import _REFUSED
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.proof import MAX_LAG, Doubt, Proof, Replication
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.survey import Address, SentinelReply, Survey

HERE, ELSEWHERE = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
PRIMARY = Replication("master")

replies = st.one_of(
    st.none(),
    st.just(SentinelReply(problem="gone")),
    st.builds(
        SentinelReply,
        address=st.sampled_from([HERE, ELSEWHERE]),
        is_down=st.booleans(),
        is_failing_over=st.booleans(),
        quorum=st.integers(1, 3),
        voters=st.integers(1, 5),
    ),
)


def survey_of(*found: SentinelReply | None) -> Survey:
    """Make a survey of these replies."""
    return Survey("main", {f"s{index}": reply for index, reply in enumerate(found)})


surveys = st.lists(replies, min_size=1, max_size=5).map(lambda found: survey_of(*found))
replications = st.builds(
    Replication,
    role=st.sampled_from(["master", "slave", ""]),
    lags=st.lists(st.integers(0, 5), max_size=3).map(lambda lags: tuple(sorted(lags))),
)


def names(address: Address = HERE, **rest: Any) -> SentinelReply:
    """Make the reply of one of three Sentinels that names this address."""
    return SentinelReply(address, **({"quorum": 2, "voters": 3} | rest))


class TestProof:
    """A proof says when the server was the primary, or why it may be none."""

    @given(
        replication=replications,
        replicas=st.integers(0, 3),
        survey=st.none() | surveys,
        asked_at=st.floats(0, 1e6),
    )
    def test_all_or_nothing(
        self, replication: Replication, replicas: int, survey: Survey | None, asked_at: float
    ) -> None:
        """It proves something only if the server is a primary in contact with enough others, by all accounts."""
        proof = Proof("the server", replication, asked_at, replicas, None if survey is None else HERE, survey)
        near = sum(lag <= MAX_LAG for lag in replication.lags)
        is_named = survey is None or (
            2 * sum(reply is not None and reply.address == HERE for reply in survey.replies.values()) > survey.size
            and survey.opposing(HERE) < survey.quorum
            and not survey.is_failing_over(HERE)
        )
        assert (proof.doubt is None) == (replication.role == "master" and near >= replicas and is_named)
        assert (proof.current_as_of is None) == (proof.doubt is not None)
        if proof.current_as_of is None:
            assert proof.error().reason in _DOUBTS
            assert str(proof.error()).startswith("the server ")
        else:
            assert asked_at - MAX_LAG < proof.current_as_of <= asked_at

    @pytest.mark.parametrize(
        ("proof", "reason", "message", "must_be_left"),
        [
            (Proof("h:1", Replication("slave")), "replica", "h:1 is a replica, not the primary", True),
            (Proof("h:1", Replication()), "unknown_role", "does not tell whether it is the primary", True),
            (
                Proof("h:1", Replication("master", (0, 9)), replicas=2),
                "few_replicas",
                "contact with 1 replicas, and 2 are needed",
                False,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(), SentinelReply(problem="is gone"), None)),
                "few_sentinels",
                "1 of 3 Sentinels name it, 2 are needed (s1 is gone, s2 does not reply)",
                False,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(ELSEWHERE), names(ELSEWHERE), names())),
                "other_primary",
                "name another server",
                True,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(is_down=True), names(is_down=True), names())),
                "called_down",
                "2 Sentinels call it down",
                False,
            ),
            (  # the first that knows of a failover names the new server, the second still calls the old one down
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(ELSEWHERE), names(is_down=True), names())),
                "called_down",
                "2 Sentinels call it down",
                False,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(is_failing_over=True), names(), names())),
                "failing_over",
                "a Sentinel is replacing it",
                False,
            ),
            (  # it has promoted another one, by force and alone, and the others have not heard of it yet
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(ELSEWHERE, replaced=HERE), names(), names())),
                "failing_over",
                "a Sentinel is replacing it",
                False,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names(ELSEWHERE, epoch=4), names(epoch=3), names())),
                "failing_over",
                "a Sentinel is replacing it",
                False,
            ),
            (
                Proof("h:1", PRIMARY, place=HERE, survey=survey_of(names())),
                "few_sentinels",
                "1 of 3 Sentinels name it, 2 are needed (2 more of them are not listed)",
                False,
            ),
        ],
        ids=lambda value: value if isinstance(value, str) and "_" in value else "",
    )
    def test_doubts(self, proof: Proof, reason: str, message: str, must_be_left: bool) -> None:
        """Each doubt has its words, and says whether the server is left at once."""
        assert (proof.doubt, proof.must_be_left) == (Doubt(reason), must_be_left)
        assert message in str(proof.error())

    def test_minority(self) -> None:
        """One Sentinel of three that is down, calls the primary down or names another one changes nothing."""
        behind = names(ELSEWHERE, epoch=2)  # it has not heard of the last failover
        for odd in (None, SentinelReply(problem="gone"), names(is_down=True), names(ELSEWHERE), behind):
            proof = Proof("h:1", PRIMARY, 5.0, place=HERE, survey=survey_of(names(epoch=3), odd, names(epoch=3)))
            assert proof.current_as_of == 5.0

    def test_as_old_as_the_contact(self) -> None:
        """A replica that was heard of two seconds ago may have been promoted a second ago."""
        ages = [Proof("h", Replication("master", (lag,)), 10.0, 1).current_as_of for lag in range(4)]
        assert ages == [10.0, 10.0, 9.0, None]

    def test_words(self) -> None:
        """The metric has a series for each reason."""
        assert {*Doubt, _REFUSED} == set(_DOUBTS)


class TestSurvey:
    """What Sentinels say together."""

    @given(survey=surveys)
    def test_conclusive(self, survey: Survey) -> None:
        """What is conclusive before all have replied stays so, whatever the others say."""
        if survey.outstanding and survey.is_conclusive(HERE):
            quorum = survey.quorum
            worst = names(ELSEWHERE, is_down=True, quorum=quorum, voters=survey.size)
            full = Survey("main", {name: reply or worst for name, reply in survey.replies.items()})
            assert full.primary == HERE
            assert full.opposing(HERE) < full.quorum

    @given(reply=st.lists(st.binary(max_size=8) | st.none() | st.integers(), max_size=6), address=st.booleans())
    def test_strange_replies(self, reply: list[Any], *, address: bool) -> None:
        """A reply that no Sentinel sends names no server."""
        found = SentinelReply.parse("main", [b"h", b"1"] if address else reply, reply)
        assert found.address is None
        assert found.problem

    def test_parsed(self) -> None:
        """A reply says what is thought of the server that it names; while that is replaced, it is about the old one."""
        state = {"name": "main", "ip": "h", "port": "1", "flags": "master,s_down,failover_in_progress", "quorum": "2"}
        words = [word.encode() for pair in (state | {"num-other-sentinels": "2"}).items() for word in pair]
        assert SentinelReply.parse("main", [b"h", b"1"], words) == SentinelReply(
            ("h", 1), is_down=True, is_failing_over=True, quorum=2, voters=3
        )
        promoted = SentinelReply.parse("main", [b"new", b"1"], words)
        assert promoted == SentinelReply(("new", 1), replaced=("h", 1), quorum=2, voters=3)
        assert SentinelReply.parse("other", [b"h", b"1"], words).problem == "replied about another service than 'other'"
        assert SentinelReply.parse("main", None, words).problem == "knows no service 'main'"


class TestReplication:
    """What INFO says of replicas."""

    def test_parsed(self) -> None:
        """Replicas that are online count, by how long ago they were heard of."""
        fields = {
            "role": "master",
            "connected_slaves": "4",
            "slave0": "ip=10.0.0.2,port=1,state=online,offset=14,lag=3",
            "slave1": "ip=10.0.0.3,port=1,state=online,offset=14,lag=0,type=replica",
            "slave2": "ip=10.0.0.4,port=1,state=wait_bgsave,offset=0,lag=0",
            "slave3": "ip=10.0.0.5,port=1,state=online,offset=14,lag=-1",
            "slave_read_only": "1",
        }
        assert Replication.parse(fields) == Replication("master", (0, 3), 4, near=(("10.0.0.3", 1),))

    @pytest.mark.parametrize(
        ("link", "read_only", "follows"), [("up", "1", True), ("down", "1", False), ("up", "0", False)]
    )
    def test_following(self, link: str, read_only: str, *, follows: bool) -> None:
        """A replica follows while it is connected, and nothing else writes to it."""
        said = Replication.parse({"role": "slave", "master_link_status": link, "slave_read_only": read_only})
        assert said.is_following is follows

    def test_reached(self) -> None:
        """A replica has what its primary had once it has as much of the same history."""
        primary = Replication("master", history="a", offset=5)
        assert Replication("slave", history="a", offset=5).has_reached(primary)
        assert not Replication("slave", history="a", offset=4).has_reached(primary)
        assert not Replication("slave", history="b", offset=9).has_reached(primary)
        assert not Replication("slave", offset=9).has_reached(Replication("master", offset=5))

    @given(fields=st.dictionaries(st.sampled_from(["role", "slave0", "slave1", "slaves"]), st.text(max_size=30)))
    def test_strange_fields(self, fields: dict[str, str]) -> None:
        """Whatever a server says is read."""
        assert Replication.parse(fields).role == fields.get("role", "")


class TestProver:
    """What a receiver does without replicas that it needs."""

    def test_patience(self) -> None:
        """A server that has lost its replicas is left after two seconds, later ones after more, up to thirty."""
        prover = Prover("h:1", Connector("redis://h:1").owner(), replicas=1)
        now = 100.0
        for patience in (2, 4, 8, 16, 30, 30):
            prover.connect(None)
            for _ in range(patience):
                prover.hear(PRIMARY, now)
                assert prover.current_as_of is None
                now += 1.0
            with pytest.raises(NotProven, match="contact with 0 replicas"):
                prover.hear(PRIMARY, now)
        prover.connect(None)
        prover.hear(Replication("master", (0,)), now)
        assert (prover.current_as_of, prover.take_refusal()) == (now, None)

    def test_refused_once(self) -> None:
        """Each answer that proves nothing is told once."""
        prover = Prover("h:1", Connector("redis://h:1").owner(), replicas=1)
        prover.hear(PRIMARY, 1.0)
        assert [getattr(prover.take_refusal(), "reason", None) for _ in range(2)] == ["few_replicas", None]
