"""Mutated messages: canonical ones with a part replaced, damaged, repeated or written in another way."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from jwt_events import Event, KeyRotated, TokenRevoked
from jwt_events.envelope import Envelope, encode
from tests.support.examples import COMPACT_JWT, EVENTS, LATER, NOON

_WHEN: dict[str, Any] = {"id": "01961f7e-0000-7000-8000-000000000002", "occurred_at": LATER, "metadata": {"n": 1}}

ORIGINALS: list[Event] = [
    *EVENTS,
    TokenRevoked(**_WHEN, user_id="user-1", client_id="client-1", except_session_id="session-1", issued_before=NOON),
    TokenRevoked(**_WHEN, claims={"tenant": "a", "act.sub": "b", "https://c.example/d": 1, "admin": True}),
    TokenRevoked(**_WHEN, everyone=True, reason="a reason"),
    KeyRotated(**_WHEN, key_id="key-1", compromised=True),
]
"""Events that together have every field, and every scope of a revocation."""

DAMAGE = [
    *(
        b"",
        b" ",
        b"\n",
        b"\t",
        b"\xc2\xa0",
        b"\xe2\x80\x83",
        b"\x00",
        b"\x1c",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
    ),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b"NaN", b"-0", b"01", b"1.", b"1.0"),
    *(b"1e999", b"1e2", b"0.1", b"9" * 17, b"9" * 19, b"9" * 20, b"[" * 300, b"." * 2, b"..", b"a.b.c", b"\\u00e9"),
    *(b"\\u0061", b"\\ud83d", b"\\ud83d\\udd11", b"\\u0000", b"\\/", b"\\n", b"eyJ", b"eyJ.a.b", b".", b"Z", b"+00:00"),
    *(b"+01:00", b"-00:00", b".5", b".500000", b".000000", b"60", b"24", b"0000", b"9999", b"T", b"t", b"Bearer "),
    *(b',"id":"again"', b',"data":{}', b',"token_id":"again"', b',"type":"token_revoked"', b'"user_id":null,'),
    *(b',"new":1', b'"metadata":{},', b'"compromised":false,', b',"compromised":true', b"x" * 512, b"x" * 1_024),
    *(b'"everyone":true,', b'"everyone":false,', b'"claims":{},', b'"claims":{"a":1.5},', b'"claims":{"a":"b"},'),
    *(b'"except_session_id":"s",', b'"a.b.c.d":1,', b'"a..b":1,', b'"a":null,', b'"a":{"b":1},', b'"a":["b"],'),
    *(b'"reason":"",', b'"expires_at":5,', b',"subject":"other"', b',"traceparent":"a"', b',"tracestate":null'),
]

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        [],
        {},
        ["a"],
        {"a": "b"},
        {"a": COMPACT_JWT},
        {COMPACT_JWT: 1},
        {"a": 1.5},
        {"a": [1]},
        {"": ""},
    ),
    *(
        {"a": True},
        {"a.b.c": "b"},
        {"a.b.c.d": 1},
        {"a..b": 1},
        {" ": 1},
        {"a" * 513: 1},
        {"a": "b" * 513},
        {"a": None},
    ),
    *({"a": {"b": 1}}, dict.fromkeys("abcdefgh", 1), dict.fromkeys("abcdefghi", 1), {"https://a.b.c.d/e": "f"}),
    *(0, -1, 2**53, 2**53 + 1, 2**63, 2**64, 10**40, 1.5, 1e11, 1_772_366_400, {"a": 2**53}, {"a": -(2**53) - 1}),
    *(
        "",
        " ",
        "\t\n",
        "\u2003",
        "\x1c",
        "\x85",
        " a",
        "a ",
        ".",
        "..",
        "...",
        "e",
        "\x7f",
        "\u2028",
        "\ufeff",
        "\U0001f511",
    ),
    *("a" * 512, "a" * 513, "\u00e9" * 512, "\u00e9" * 513, "a" * 1_024, "a" * 1_025, "\U0001f511" * 512),
    *("x.y.z", " x.y.z", "\u00e9.y.z", "x.y.z.w", "eve@mail.eu.example", "https://auth.eu.example/", "10.0.0.1", "a.b"),
    *(COMPACT_JWT, COMPACT_JWT.upper(), f" bEaReR\n{COMPACT_JWT}\t", f"{COMPACT_JWT}.a.b", "eyJa..", "\x1ceyJa.b.c"),
    *("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00.500000Z", "2026-03-01T12:00:00+01:00"),
    *(
        "2026-03-01T12:00:00",
        "20260301",
        "2026-03-01T12:00:00-00:00",
        "2026-03-01T12:00:00.000000Z",
        "2026-03-01 12:00:00Z",
    ),
    *("0000-01-01T12:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z"),
    *("2026-03-01T23:59:60Z", "9999-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "2026-03-01T24:00:00Z"),
]


def compact(message: Any) -> bytes:
    """Return JSON as the library writes it."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def mutated(number: int, seed: int) -> Iterator[bytes]:
    """Yield messages, each mutated once to three times; the same ones for the same seed."""
    chance = random.Random(seed)
    originals = [
        encode(Envelope(event, trace), source="auth") for event in ORIGINALS for trace in (None, "00-aa-bb-01")
    ]
    for _ in range(number):
        payload = chance.choice(originals)
        if chance.random() < 0.5:
            payload = _replaced(payload, chance)
        if chance.random() < 0.6:
            payload = _damaged(payload, chance)
        yield payload


def _replaced(payload: bytes, chance: random.Random) -> bytes:
    message = json.loads(payload)
    for _ in range(chance.randint(1, 2)):
        part = chance.choice([message, message["data"]]) if isinstance(message.get("data"), dict) else message
        name = chance.choice([*part, *json.loads(payload)["data"]])
        if chance.random() < 0.2:
            part.pop(name, None)
        else:
            part[name] = copy.deepcopy(chance.choice(VALUES))
    return compact(message)


def _damaged(payload: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 2)):
        start = chance.randint(0, len(payload))
        end = min(len(payload), start + chance.choice([0, 0, 0, 1, 1, 2, 3]))
        payload = payload[:start] + chance.choice(DAMAGE) + payload[end:]
    return payload
