"""The names of a stream's keys: pure."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from jwt_events import RedisStream
from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.slots import hash_tag, slot_of
from jwt_events.transport._stream.keys import StreamKeys

NAMES = st.text(alphabet="{}ab:é", min_size=1, max_size=8)


def all_of(keys: StreamKeys) -> list[str]:
    """Return every name, also those of leases and of markers."""
    named = [keys.stream, keys.ledger, keys.ledger_lock, keys.retention, keys.dead_letter, keys.fleet]
    return [*named, keys.lease("poller:a"), keys.lease("poller:a") + ":note", keys.dead_letter_marker("1-0")]


class TestSlot:
    """What decides the slot of a key."""

    @given(st.text(alphabet="{}abé", max_size=8))
    def test_only_the_tag_counts(self, key: str) -> None:
        """A key with a tag is in the slot of the tag alone; any other one is where redis-py has it."""
        assert slot_of(key) == key_slot((hash_tag(key) or key).encode())

    @pytest.mark.parametrize(
        ("key", "tag"),
        [
            ("{a}", "a"),
            ("b:{a}:c{d}", "a"),
            ("{{a}}", "{a"),
            ("{}{a}", None),
            ("a", None),
            ("{a", None),
            ("}{", None),
            ("", None),
        ],
    )
    def test_hash_tag(self, key: str, tag: str | None) -> None:
        """It is what stands between the first brace that opens and the next one that closes."""
        assert hash_tag(key) == tag


class TestNames:
    """The names themselves."""

    def test_on_one_server(self) -> None:
        """They are what they always were."""
        assert all_of(StreamKeys("jwt:events")) == [
            "jwt:events",
            "jwt:events:ledger",
            "jwt:events:ledger:lock",
            "jwt:events:retention",
            "jwt:events:dead",
            "jwt:events:fleet",
            "{jwt:events}:poller:a",
            "{jwt:events}:poller:a:note",
            "jwt:events:dead:1-0",
        ]
        assert StreamKeys("jwt:events").plain is None

    def test_in_a_cluster(self) -> None:
        """The key of the stream becomes the tag of the others."""
        keys = StreamKeys("jwt:events", in_cluster=True)
        assert all_of(keys) == [
            "jwt:events",
            "{jwt:events}:ledger",
            "{jwt:events}:ledger:lock",
            "{jwt:events}:retention",
            "{jwt:events}:dead",
            "{jwt:events}:fleet",
            "{jwt:events}:poller:a",
            "{jwt:events}:poller:a:note",
            "{jwt:events}:dead:1-0",
        ]
        assert keys.plain is not None
        assert all_of(keys.plain) == all_of(StreamKeys("jwt:events"))

    @pytest.mark.parametrize("stream", ["{jwt}:events", "a{b}c{d}"])
    def test_with_a_hash_tag(self, stream: str) -> None:
        """They are the same on both, so nothing lies under other names."""
        keys = StreamKeys(stream, in_cluster=True)
        assert all_of(keys) == all_of(StreamKeys(stream))
        assert keys.plain is None

    @given(NAMES)
    def test_one_slot(self, stream: str) -> None:
        """In a cluster all are in the slot of the stream, or the stream is refused."""
        with suppress(InvalidOption):
            slots = {key_slot(name.encode()) for name in all_of(StreamKeys(stream, in_cluster=True))}
            assert slots == {key_slot(stream.encode())}

    @given(NAMES, NAMES, NAMES)
    def test_given_by_hand(self, stream: str, ledger: str, dead_letter: str) -> None:
        """The same with names that were given by hand: what is not in the slot is refused."""
        with suppress(InvalidOption):
            keys = StreamKeys(stream, in_cluster=True, ledger=ledger, dead_letter=dead_letter)
            assert (keys.ledger, keys.dead_letter) == (ledger, dead_letter)
            assert {key_slot(name.encode()) for name in all_of(keys)} == {key_slot(stream.encode())}

    @pytest.mark.parametrize("stream", ["a}", "{}a", "}{"])
    def test_no_slot(self, stream: str) -> None:
        """A name beside which no other key can be is refused where that matters."""
        with pytest.raises(InvalidOption, match="key: has a '}' but no hash tag"):
            StreamKeys(stream, in_cluster=True)
        assert StreamKeys(stream).ledger == f"{stream}:ledger"

    def test_without_a_ledger(self) -> None:
        """The name stays known, and says that there is none."""
        keys = StreamKeys("k", ledger=False)
        assert (keys.has_ledger, keys.ledger) == (False, "k:ledger")
        assert StreamKeys("k").has_ledger


class TestRefused:
    """What a caller may not give."""

    @pytest.mark.parametrize("option", ["ledger", "dead_letter"])
    @pytest.mark.parametrize("name", ["k:other", "other", "{}k", "{other}:k", "k"])
    def test_another_slot(self, option: str, name: str) -> None:
        """The error names both keys, and a name that works."""
        stream = "{jwt}:events" if name != "k" else "jwt"
        given_by_hand: dict[str, Any] = {option: name}
        with pytest.raises(InvalidOption) as refused:
            StreamKeys(stream, in_cluster=True, **given_by_hand)
        assert refused.value.option == option
        assert repr(name) in str(refused.value)
        assert repr(stream) in str(refused.value)
        advice: dict[str, Any] = {option: str(refused.value).rpartition(": ")[2]}
        found = StreamKeys(stream, in_cluster=True, **advice)
        assert slot_of(getattr(found, option)) == slot_of(stream)

    def test_the_slot_by_chance(self) -> None:
        """A name in the slot that has no hash tag is refused: what lies beside it would be elsewhere."""
        with pytest.raises(InvalidOption, match="dead_letter: is 'k'"):
            StreamKeys("{k}:events", in_cluster=True, dead_letter="k")
        assert StreamKeys("{k}:events", dead_letter="k").dead_letter == "k"

    @pytest.mark.parametrize("in_cluster", [False, True])
    @pytest.mark.parametrize("option", ["ledger", "dead_letter"])
    @pytest.mark.parametrize("name", ["{k}", "{k}:retention", "{k}:fleet", "{k}:ledger:lock"])
    def test_the_same_name(self, in_cluster: bool, option: str, name: str) -> None:
        """One key cannot be two things."""
        given_by_hand: dict[str, Any] = {option: name}
        if (option, name) == ("ledger", "{k}:ledger:lock"):
            given_by_hand["dead_letter"] = name
        with pytest.raises(InvalidOption, match="must differ from the key of the stream"):
            StreamKeys("{k}", in_cluster=in_cluster, **given_by_hand)

    @pytest.mark.parametrize("option", ["ledger", "dead_letter"])
    @pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 513, 1, b"k"])
    def test_no_name(self, option: str, name: Any) -> None:
        """What is no name is refused, also by the transport."""
        given_by_hand: dict[str, Any] = {option: name}
        with pytest.raises(InvalidOption, match=f"^{option}: must be"):
            RedisStream("redis://localhost", "k", **given_by_hand)

    def test_a_lease_too_long(self) -> None:
        """A name for a lease is bounded."""
        with pytest.raises(InvalidOption, match=r"^key: must be"):
            StreamKeys("k").lease("x" * 1_100)
