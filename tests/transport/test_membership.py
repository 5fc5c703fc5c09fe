"""What a node of a cluster says of its place in it, and what that proves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import ServerRefused, TransportError
from jwt_events.transport._redis.membership import Membership
from jwt_events.transport._redis.proof import Proof, Replication
from jwt_events.transport._redis.slots import slot_of

KEY = "k"
SLOT = slot_of(KEY)
NOW = 1_700_000_000_000

UP = b"cluster_enabled:1\r\ncluster_state:ok\r\ncluster_size:3\r\n"
DOWN = UP.replace(b"ok", b"fail")


def line(
    name: str, slots: str = "", *, flags: str = "master", pinged: int = 0, link: str = "connected", of: str = "-"
) -> str:
    """Return a line of CLUSTER NODES.

    Args:
        name: the id of the node.
        slots: its slots.
        flags: its flags.
        pinged: milliseconds for which a ping has been waiting for its reply; 0 if none is.
        link: the state of the link to it.
        of: the id of its primary.
    """
    sent = NOW - pinged if pinged else 0
    return f"{name} 127.0.0.1:1@2,host {flags} {of} {sent} {NOW - 900} 7 {link} {slots}".rstrip()


SELF = line("a", f"0-{SLOT}", flags="myself,master", link="connected")
FAR = line("b", f"{SLOT + 1}-16000")


def said(*lines: str, info: bytes = UP) -> Membership:
    """Return what a node says, as it is understood."""
    time = [str(NOW // 1000).encode(), str(NOW % 1000 * 1000).encode()]
    return Membership.parse([info, "\n".join([*lines, ""]).encode(), time], KEY)


def doubt(membership: Membership) -> str | None:
    """Return what is in doubt at a primary in a cluster."""
    found = Proof("h:1", Replication("master"), 5.0, membership=membership).doubt
    return found and found.value


class TestProof:
    """When the owner of a slot proves that it is the owner."""

    @pytest.mark.parametrize(
        ("third", "reason"),
        [
            (line("c", "16001-16383"), None),
            (line("c", "16001-16383", pinged=500), None),
            (line("c", "16001-16383", pinged=501), "few_primaries"),
            (line("c", "16001-16383", link="disconnected"), "few_primaries"),
            (line("c", "16001-16383", flags="master,fail?"), "few_primaries"),
            (line("c", "16001-16383", flags="master,fail"), "few_primaries"),
            (line("c", "16001-16383", flags="handshake,master"), "few_primaries"),
            (line("c", flags="slave", of="a"), "few_primaries"),
            (line("c", "[16001->-b]"), "few_primaries"),
        ],
    )
    def test_contact(self, third: str, reason: str | None) -> None:
        """A majority of the primaries that have slots must reply to its pings, whatever the replicas do."""
        lost = line("b", f"{SLOT + 1}-16000", pinged=3_000)
        assert doubt(said(SELF, lost, third, line("d", flags="slave", of="b"))) == reason

    def test_it_must_be_the_owner(self) -> None:
        """The slot may be among its ranges, alone, or not there; what it is moving is still its own."""
        assert doubt(said(line("a", "5", flags="myself,master"), FAR)) == "other_owner"
        assert doubt(said(line("a", flags="myself,master"), FAR)) == "other_owner"
        assert doubt(said(line("a", f"[{SLOT}->-b]", flags="myself,master"), FAR)) == "other_owner"
        assert doubt(said(line("a", f"5 {SLOT} [{SLOT}->-b]", flags="myself,master"), FAR)) is None
        assert doubt(said(line("a", f"0-{SLOT}"), line("x", "16001-16383", flags="myself,master"))) == "other_owner"

    def test_the_cluster_must_be_up(self) -> None:
        """What a node replies to reads while it says that its cluster is down proves nothing."""
        assert doubt(said(SELF, FAR, info=DOWN)) == "cluster_down"
        proof = Proof("h:1", Replication("master"), 5.0, membership=said(SELF, FAR, info=DOWN))
        assert proof.must_be_left
        assert "h:1 says that its cluster is down" in str(proof.error())

    def test_alone(self) -> None:
        """A cluster of one primary has its majority."""
        assert doubt(said(SELF)) is None
        assert doubt(said(SELF, FAR)) is None
        assert doubt(said(SELF, line("b", "9", pinged=900))) == "few_primaries"

    def test_what_is_said_of_it(self) -> None:
        """The error says how many are needed."""
        membership = said(SELF, line("b", "9", pinged=900), line("c", "10", pinged=900))
        error = Proof("h:1", Replication("master"), membership=membership).error()
        assert str(error) == "h:1 is in contact with 1 of 3 primaries, 2 are needed"
        assert error.reason == "few_primaries"

    def test_a_replica_comes_first(self) -> None:
        """A node that was demoted says so of its role."""
        membership = said(line("a", flags="myself,slave", of="b"), FAR)
        assert Proof("h:1", Replication("slave"), membership=membership).doubt == "replica"


class TestHandover:
    """Whether a primary gave a slot away, or was replaced."""

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ((line("a", "5", flags="myself,master"), FAR), True),
            ((SELF, FAR), False),
            ((line("a", flags="myself,master"), FAR), False),
            ((line("a", flags="myself,slave", of="b"), FAR), False),
            ((line("a", "5", flags="myself,master"), line("b", f"{SLOT}", pinged=900)), False),
        ],
    )
    def test_handed_over(self, lines: Sequence[str], expected: bool) -> None:
        """It must be a primary that has other slots, and be in contact with the others."""
        assert said(*lines).has_handed_over is expected
        assert not said(*lines, info=DOWN).has_handed_over


class TestReplies:
    """What is no reply of a node proves nothing."""

    def test_refused(self) -> None:
        """The error names the rights."""
        refusal = ServerRefused("CLUSTER refused: NOPERM", code="NOPERM")
        with pytest.raises(ServerRefused, match=r"\+cluster\|info, \+cluster\|nodes and \+time"):
            Membership.parse([UP, refusal, [b"1", b"2"]], KEY)

    @given(info=st.binary(max_size=30), nodes=st.text(max_size=60), time=st.lists(st.binary(max_size=4), max_size=3))
    def test_strange(self, info: bytes, nodes: str, time: Sequence[bytes]) -> None:
        """Whatever is said, it is read, or it is a `TransportError`."""
        try:
            found = Membership.parse([info, nodes.encode(), time], KEY)
        except TransportError:
            return
        assert not (found.is_up and found.is_owner)
