"""The fast path and the full path of decoding return the same results."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from jwt_events import Event, TokenRevoked
from jwt_events.envelope import Envelope, decode_any, encode
from jwt_events.envelope import _codec as envelope
from jwt_events.events._fast_path import _SCHEMAS
from jwt_events.events._fields import Identifier, Instant, Metadata, Text, TokenId
from tests.support.decoding import decoded
from tests.support.examples import COMPACT_JWT, EVENTS
from tests.support.strategies import json_values, known_events

_DAMAGE = [
    *(b"", b" ", b"\n", b"\xc2\xa0", b"\x00", b"\x1f", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-Infinity", b"-0", b"01", b"1."),
    *(b"1e999", b"1e-999", b"0.1", b"9" * 17, b"9" * 19, b"9" * 4_301, b"[" * 300, b"]" * 300),
    *(b"\\u0061", b"\\ud83d", b"\\ud83d\\udd11", b"\\u0000", b"\\/", b"\\x", b"eyJ", b".", b"Z", b"+00:00"),
    *(b',"id":"again"', b',"\\u0069d":"again"', b',"data":{}', b',"token_id":"again"', b',"type":"token_revoked"'),
    *(b',"new":1', b',"new":"a","new":"a"', b'"metadata":{"a":1,"\\u0061":1},', b'"source":null,', b'"user_id":null,'),
]

_PROBES: list[Any] = [
    *(None, True, False, [], {}, ["a"], {"a": "b"}),
    *(0, -1, 2**53, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 10**40, 1.5, 1e11, 1_772_366_400),
    *("", " ", "\t\n", "\u2003", "\x1c", "\x85", " a", "a ", ".", "..", "...", "e", "b", "e.", "B..", "ey..", "be.."),
    *(
        "a" * 512,
        "a" * 513,
        "\u00e9" * 512,
        "\u00e9" * 513,
        "\u00e9" * 1_024,
        "\u00e9" * 1_025,
        "half \ud83d",
        "\U0001f511",
    ),
    *("x.y.z", " x.y.z", "\u00e9.y.z", "x.y.z.w", "bob@mail.eu.example", "eve@mail.eu.example", "10.0.0.1", "..a"),
    *(
        COMPACT_JWT,
        f" bEaReR\n{COMPACT_JWT}\t",
        f"{COMPACT_JWT}.a.b",
        f"{COMPACT_JWT}.",
        f"Bearer{COMPACT_JWT}",
        "EYj0..",
    ),
    *("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00+01:00", "2026-03-01T12:00:00", "20260301"),
    *("0000-01-01T12:00:00Z", "0001-01-01T00:00:00+14:00", "2026-03-01T23:59:60Z", "2026-03-01T12:00:00.1234567Z"),
    *("2026-03-01t12:00:00z", "9999-12-31T23:59:60Z", "2026-03-01t23:59:60.5+01:00"),
]
_TOKENS = [
    f"{before}{token}{after}"
    for before in (
        "",
        " ",
        "\t",
        "\x1c",
        "\u2003",
        "x",
        ".",
        "Bearer ",
        "bEaReR\t",
        " BEARER\n",
        "Bearer\u2003",
        "Bearer",
    )
    for token in (COMPACT_JWT, COMPACT_JWT.upper(), "eyJ.a.b", "eyJ0..", "Eyj0..", "eyJa.b.c.d.e", "eyJa.b")
    for after in ("", "\n", ".", "\x85", "=")
]
_TIMES = [
    f"{day}{between}{time}{fraction}{zone}"
    for day in ("2026-03-01", "0000-01-01", "0001-01-01", "9999-12-31", "2026-02-30", "20260301")
    for between in ("T", "t", " ")
    for time in ("12:00:00", "24:00:00", "23:59:60", "12:00", "\u0661\u0662:00:00")
    for fraction in ("", ".5", ".250000", ".1234567", ",5")
    for zone in ("Z", "z", "+00:00", "+01:00", "-23:59", "", "Z\n")
]
_ANYTHING = st.sampled_from(_PROBES) | st.text("eEyYjJbB.Z \t", max_size=9) | json_values


def _assert_same_on_both_paths(*payloads: bytes) -> None:
    expected_results = [decoded(payload) for payload in payloads]
    assert [decoded(payload, decode_any) for payload in payloads] == expected_results
    with (
        patch.object(envelope, "_FAST_BUILDERS", {}),
        patch.object(jiter, "from_json", side_effect=ValueError),
    ):
        for payload, expected in zip(payloads, expected_results, strict=True):
            assert decoded(payload, decode_any) == expected


class TestFastPath:
    """Messages that the fast path covers."""

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_examples(self, event: Event) -> None:
        """Every event that the library encodes is covered."""
        message = json.loads(encode(Envelope(event), source="auth"))
        assert envelope._FAST_BUILDERS[message["type"]](message) == event

    @pytest.mark.parametrize(
        "identifier", ["bob@mail.eu.example", "eve@mail.eu.example", "\u00e9.\u00e9.\u00e9", "https://auth.eu.example/"]
    )
    def test_dots(self, identifier: str) -> None:
        """An address or a URL with several dots is not taken for a token."""
        event = TokenRevoked(user_id=identifier, source=identifier)
        message = json.loads(encode(Envelope(event), source="auth"))
        assert envelope._FAST_BUILDERS[message["type"]](message) == event


class TestBothPaths:
    """Both paths return equal events, field by field, or raise equal errors."""

    @given(known_events, st.sampled_from([None, "00-aa-bb-01"]))
    def test_events(self, event: Event, traceparent: str | None) -> None:
        """Any event that the library encodes."""
        _assert_same_on_both_paths(encode(Envelope(event, traceparent), source="auth"))

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_each_part(self, event: Event) -> None:
        """A message in which one part is missing or replaced."""
        message = json.loads(encode(Envelope(event), source="auth"))
        payloads = []
        for part in (message, message["data"], message["data"]["metadata"]):
            for name in {*message, *type(event).model_fields, "new"}:
                kept = dict(part)
                part.pop(name, None)
                payloads.append(json.dumps(message).encode())
                for probe in [*_PROBES, event.type]:
                    part[name] = probe
                    payloads.append(json.dumps(message).encode())
                part.clear()
                part.update(kept)
        _assert_same_on_both_paths(*payloads)

    def test_no_target(self) -> None:
        """A revocation without a target is rejected on both paths."""
        message = json.loads(encode(Envelope(TokenRevoked(user_id="a")), source="auth"))
        _assert_same_on_both_paths(*(json.dumps(message | {"data": data}).encode() for data in ({}, {"reason": "a"})))

    @given(known_events, st.data())
    def test_parts_replaced(self, event: Event, data: st.DataObject) -> None:
        """A message with other values, another order, other white space and escapes."""
        message = json.loads(encode(Envelope(event), source="auth"))
        for _ in range(data.draw(st.integers(1, 3))):
            part = data.draw(
                st.sampled_from([part for part in (message, message.get("data")) if isinstance(part, dict)])
            )
            names = [*message, *type(event).model_fields, "new"]
            part[data.draw(st.sampled_from(sorted(names)))] = data.draw(_ANYTHING)
        shuffled = dict(data.draw(st.permutations(list(message.items()))))
        indent, ascii_only = data.draw(st.sampled_from([None, 0, 1])), data.draw(st.booleans())
        _assert_same_on_both_paths(
            json.dumps(shuffled, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        )

    @given(known_events, st.data())
    def test_damaged(self, event: Event, data: st.DataObject) -> None:
        """A message with bytes changed, removed and added: duplicate keys, numbers out of range, half characters."""
        payload = bytearray(encode(Envelope(event), source="auth"))
        for _ in range(data.draw(st.integers(1, 3))):
            start = data.draw(st.integers(0, len(payload)))
            end = data.draw(st.integers(start, min(len(payload), start + 3)))
            payload[start:end] = data.draw(st.sampled_from(_DAMAGE))
        _assert_same_on_both_paths(bytes(payload))

    @given(known_events, st.data())
    def test_inserted_between_members(self, event: Event, data: st.DataObject) -> None:
        """A message with additional content, well-formed in most cases."""
        payload = encode(Envelope(event), source="auth")
        places = [place for place, byte in enumerate(payload) if byte in b',{}:"']
        for _ in range(data.draw(st.integers(1, 2))):
            place = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 1))
            payload = payload[:place] + data.draw(st.sampled_from(_DAMAGE)) + payload[place:]
        _assert_same_on_both_paths(payload)


class TestSchemas:
    """A schema of the fast path accepts a subset of what its type accepts, and returns the same values."""

    @pytest.mark.parametrize("kind", _SCHEMAS, ids=["Identifier", "TokenId", "Text", "Instant", "Metadata", "bool"])
    def test_proves(self, kind: Any) -> None:
        """The type accepts every value that the schema accepts, and both return the same."""
        fast, full = SchemaValidator(_SCHEMAS[kind], {"strict": True}), TypeAdapter(kind, config={"strict": True})
        accepted = 0
        probes = [*_PROBES, *_TOKENS, *_TIMES]
        for probe in [*probes, *({"a": probe} for probe in probes), *({str(probe): "a"} for probe in probes)]:
            try:
                value = fast.validate_python(probe)
            except ValidationError:
                continue
            accepted += 1
            assert repr(value) == repr(full.validate_json(json.dumps(probe)))
        assert accepted > 1

    def test_all_kinds(self) -> None:
        """Every type of field has a schema."""
        assert set(_SCHEMAS) == {Identifier, TokenId, Text, Instant, Metadata, bool}
