"""Every public error and record can be pickled, copied and deep-copied: process pools, caches and logs do it."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest

from jwt_events import (
    ClaimNames,
    DeadLetter,
    Event,
    Explanation,
    Gap,
    Guarantees,
    JWTEventsError,
    MemoryTransport,
    Propagation,
    Receipt,
    Retry,
    RevocationList,
    RevocationStats,
    SigningKeysStats,
    Subscriber,
    SubscriberStats,
    TokenRevoked,
    UnknownEvent,
    Verdict,
    errors,
)
from jwt_events.embedded import ServerNotStarted
from jwt_events.envelope import Envelope
from jwt_events.guard import Admission, Refused
from jwt_events.testing import ReceiverCase
from jwt_events.transport.base import Backlog, Batch, Delivery, Failure, Sent, Server
from jwt_events.transport.ledger import LedgerSummary
from jwt_events.transport.optional import LedgerEntry, LedgerReport, Reading, Stored
from tests.support.examples import EVENTS

WAYS: list[Callable[[Any], Any]] = [
    *(lambda value, version=version: pickle.loads(pickle.dumps(value, version)) for version in range(2, 6)),
    copy.copy,
    copy.deepcopy,
]
MODULES = [
    *("jwt_events", "jwt_events.errors", "jwt_events.events", "jwt_events.envelope", "jwt_events.embedded"),
    *("jwt_events.guard", "jwt_events.publisher", "jwt_events.subscriber", "jwt_events.revocation", "jwt_events.keys"),
    *(
        "jwt_events.transport.base",
        "jwt_events.transport.optional",
        "jwt_events.transport.dead_letters",
        "jwt_events.testing",
    ),
    "jwt_events.transport.ledger",
]
"""Where public errors and records are."""

_RECEIPT = Receipt("1", "1-0")
_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_PROBLEMS = [("user_id", "is too long"), ("metadata.a", "must be text")]

ERRORS: list[JWTEventsError] = [
    errors.JWTEventsError("m"),
    errors.InvalidOption("start", "must be 'new'"),
    errors.InvalidEvent(_PROBLEMS),
    errors.EventTooLarge(2, 1),
    errors.OutlivesRetention(1.0, 2.0),
    errors.DecodeError("not_json", "not UTF-8"),
    errors.InvalidClaims("sub", "must be text"),
    errors.Unavailable("m", retry_after=3.0),
    errors.NotLive("m"),
    errors.RevokedTokenError("user_at_client", _NOW),
    errors.ExpiredTokenError(1.5),
    errors.StaleRevocationsError(math.inf, 5.0),
    errors.StaleRevocationsError(0.1, 5.0, "1-0"),
    errors.RenewalRefused("sub", "m"),
    errors.AnotherSubject("sub", "m"),
    errors.OlderToken("iat", "m"),
    errors.SignalRefused("invalid_key", "the key is unknown"),
    errors.TransmitterError("m", status=503, retry_after=2.0),
    errors.TransmitterRefused("m", status=401),
    errors.Closed("m"),
    errors.WrongLoop("m"),
    errors.TransportError("m", maybe_done=True, retryable=True),
    errors.ConnectionFailed("m", maybe_done=True),
    errors.NotProven("m", reason="replica"),
    errors.NotConfirmed("m", position="1-1", replicas=1, retryable=True),
    errors.NotReplicated("m", event_ids=["e"], positions=["1-1"], replicas=1),
    errors.ServerRefused("m", code="NOPERM", retryable=True),
    errors.SubscriptionRefused("m", retryable=True),
    errors.PublishError("m", event_ids=["1"], receipts=[_RECEIPT]),
    errors.PublishFailed("m", event_ids=["1", "2"], receipts=[_RECEIPT]),
    errors.PublishOutcomeUnknown("m", event_ids=["1"]),
    errors.SigningKeyError("m", fingerprint="ab", retry_after=2.0),
    errors.UnknownKey("m", fingerprint="ab", retry_after=2.0),
    errors.RetiredKey("m", fingerprint="ab"),
    errors.CompromisedKey("m", fingerprint="ab"),
    errors.KeysUnavailable("m", retry_after=2.0),
    errors.InvalidKeySet("m"),
    Refused("unavailable", realm="r", retry_after=7.0),
    ServerNotStarted("it ended", "its log"),
]
RECORDS: list[Any] = [
    ReceiverCase("happy path", ("token",), (None,), 1),
    _RECEIPT,
    Propagation("fleet", _NOW, ["orders/a"], missing=["billing"]),
    Gap("1-0", "trimmed", 3),
    Guarantees(durable=True, redelivers=False, ordered=True, fan_out=True),
    Delivery(b"{}", "1-0", 2),
    Failure("ValueError", "handler", 3),
    Batch([Delivery(b"{}")], [Gap(None, "reconnected")], 1.0),
    Backlog("jwt:events", "mailer", 3, 1),
    LedgerEntry(b"x", math.inf),
    LedgerReport(1.0, {"ending": 2}, 300),
    Reading({"orders/a/1": b"{}"}, 1.5, "history"),
    Stored(1.0, is_new=True),
    Sent("1-0", 2),
    LedgerSummary("k:ledger", True, 3, 1, 1, 100, "1-0", 1, "2-0", 0, None, 1.0, False),
    Server("redis", "host", 6379, "group"),
    Retry(attempts=2, on=(OSError,)),
    ClaimNames(user="user_id"),
    DeadLetter("1-0", b"{}", "ValueError", "handler", 3, "consumer", "1-0", _NOW, ((b"a", b"1"),)),
    RevocationStats({"token": 2}, 1, 2, 3, 4, 5, 6, 7),
    SigningKeysStats(1, math.inf, 2, 3, 4),
    SubscriberStats(1, 2, 3, 4, 5, 6, 7, 8, 9),
    Explanation(Verdict.REVOKED, None, 0.5),
    Envelope(TokenRevoked(token_id="t"), "00-aa-bb-01"),
    Admission("user", {"sub": "user"}),
    *EVENTS,
    UnknownEvent(type="jwt.other.v1", data={"a": [1]}, metadata={"b": 2}),
    *Verdict,
]


def _public_classes() -> Iterator[type]:
    """Iterate over the public classes whose instances are values: errors, events, dataclasses and named tuples."""
    for name in MODULES:
        module = import_module(name)
        for word in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, word)
            if word.startswith("_") or not isinstance(value, type) or not value.__module__.startswith("jwt_events"):
                continue
            is_tuple = issubclass(value, tuple) and hasattr(value, "_fields")
            if dataclasses.is_dataclass(value) or is_tuple or issubclass(value, JWTEventsError | Event):
                yield value


def _assert_equal(found: Any, value: Any) -> None:
    assert type(found) is type(value)
    if isinstance(value, BaseException):
        assert (found.args, str(found), repr(found), vars(found)) == (value.args, str(value), repr(value), vars(value))
    else:
        assert found == value


def test_all_are_here() -> None:
    """Every public class of errors and records has an instance above."""
    assert set(_public_classes()) - {Event} - {type(value) for value in [*ERRORS, *RECORDS]} == set()
    assert len(set(_public_classes())) > 40


@pytest.mark.parametrize("value", [*ERRORS, *RECORDS], ids=lambda value: type(value).__name__)
def test_copies(value: Any) -> None:
    """Each copy is equal to the original, and so is the copy of a copy."""
    for way in WAYS:
        _assert_equal(way(value), value)
        _assert_equal(way(way(value)), value)


def test_where_errors_are() -> None:
    """A traceback, and a pickle, name the module from which programs import an error."""
    assert {name for name in errors.__all__ if getattr(errors, name).__module__ != "jwt_events.errors"} == set()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_note_stays(error: JWTEventsError) -> None:
    """Notes and attributes that a program adds are kept."""
    noted = copy.copy(error)
    noted.add_note("a note")
    _assert_equal(pickle.loads(pickle.dumps(noted)), noted)
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    "value", list(filter(dataclasses.is_dataclass, RECORDS)), ids=lambda value: type(value).__name__
)
def test_as_dictionaries(value: Any) -> None:
    """`dataclasses.asdict` and `dataclasses.replace` work."""
    assert dataclasses.asdict(value).keys() == {field.name for field in dataclasses.fields(value)}
    assert dataclasses.replace(value) == value


async def test_counts_of_what_runs() -> None:
    """What the parts return is a record, too."""
    async with RevocationList(MemoryTransport()) as revocations:
        for stats in (revocations.stats, Subscriber(MemoryTransport()).stats):
            for way in WAYS:
                _assert_equal(way(stats), stats)
            assert dataclasses.asdict(stats)
        _assert_equal(copy.deepcopy(revocations.explain({"sub": "a"})).verdict, Verdict.ALLOW)
