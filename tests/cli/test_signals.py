"""``jwt-events signals``, against a transmitter on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jwt_events.signals import CAEP
from jwt_events.testing import Transmitter
from tests.support.commands import Outcome, run

IDP = Transmitter()
SECRET = "Bearer of-the-operator"
CAROL = json.dumps({"format": "email", "email": "carol@example.com"})


@contextmanager
def serving() -> Iterator[Any]:
    """Run a transmitter in a thread, as the commands run an event loop of their own."""
    started, loop, found = threading.Event(), asyncio.new_event_loop(), []
    ended: list[asyncio.Event] = []

    async def serve() -> None:
        async with IDP.serve(authorization=SECRET) as served:
            found.append(served)
            ended.append(asyncio.Event())
            started.set()
            await ended[0].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended[0].set)
        thread.join()
        loop.close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A transmitter, and the authorization for it in the environment."""
    monkeypatch.setenv("JWT_EVENTS_AUTHORIZATION", SECRET)
    with serving() as found:
        yield found


def signals(served: Any, command: str, *arguments: str) -> Outcome:
    """Run one of the commands."""
    return run("signals", command, *arguments, "--issuer", IDP.issuer, "--configuration-url", served.configuration_url)


def test_the_life_of_a_stream(served: Any) -> None:
    """It is created, shown, listed, changed, paused, verified and deleted; subjects come and go."""
    (about,) = signals(served, "discover", "--json").records
    assert about["configuration_endpoint"] == f"{served.url}/streams"
    assert signals(served, "list").errors == "jwt-events: there are no streams\n"
    kind = f"{CAEP}session-revoked"
    (created,) = signals(served, "create", "--events-requested", kind, "--json").records
    assert (created["endpoint_url"], created["events_delivered"]) == (served.poll_url, [kind])
    assert signals(served, "show", "--json").records == [created]
    assert f"stream_id\t{created['stream_id']}" in signals(served, "show").lines
    assert f"events_delivered\t{kind}" in signals(served, "show").lines
    assert signals(served, "list", "--json").records == [created]
    assert created["stream_id"] in signals(served, "list").lines[1]
    (changed,) = signals(served, "update", "--description", "orders", "--json").records
    assert changed == {**created, "description": "orders"}
    (paused,) = signals(served, "status", "paused", "--reason", "upkeep", "--json").records
    assert paused == {"stream_id": created["stream_id"], "status": "paused", "reason": "upkeep"}
    assert signals(served, "status", "--json").records == [paused]
    assert signals(served, "verify", "--state", "s1").code == 0
    assert len(served.pending) == 1
    assert signals(served, "remove-subject", CAROL).code == 0
    assert served.removed == [json.loads(CAROL)]
    assert signals(served, "add-subject", CAROL, "--verified", "--stream-id", created["stream_id"]).code == 0
    assert served.removed == []
    assert signals(served, "delete", "--yes", "--json").records == [{"deleted": created["stream_id"]}]
    assert served.streams == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("show",), "--stream-id: must be given: the transmitter has 0 streams"),
        (("show", "--stream-id", "x"), "answered 404"),
        (("delete",), "--yes"),
        (("update",), "--description"),
        (("status", "asleep"), "STATUS: must be one of enabled, paused, disabled"),
        (("add-subject", "carol"), "SUBJECT"),
        (("add-subject", "{}"), "SUBJECT: must be a subject identifier"),
        (("create", "--push-url", "http://evil.example"), "--push-url"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refused(served: Any, arguments: tuple[str, ...], named: str) -> None:
    """What cannot be done is one line, and the exit code 2."""
    told = signals(served, *arguments)
    assert told.code == 2
    assert named in told.complaint


def test_without_authorization(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, or with a wrong value, which is not repeated, the line says where to look."""
    monkeypatch.setenv("JWT_EVENTS_AUTHORIZATION", "Bearer wrong-value")
    told = signals(served, "list")
    assert (told.code, "401" in told.complaint, "wrong-value" in told.complaint) == (2, True, False)
    monkeypatch.delenv("JWT_EVENTS_AUTHORIZATION")
    assert "look at the authorization" in signals(served, "list").complaint
