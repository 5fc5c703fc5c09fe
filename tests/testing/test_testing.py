"""RecordingPublisher, eventually, and the pytest fixtures."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jwt_events import (
    Closed,
    Event,
    EventTooLarge,
    EventType,
    InvalidOption,
    KeyRotated,
    MemoryTransport,
    Publisher,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    Receipt,
    RevocationList,
    SessionDestroyed,
    TokenRevoked,
    Verdict,
)
from jwt_events.testing import Faults, FaultyTransport, Listener, ManualClock, RecordingPublisher, eventually
from tests.support.examples import revoked
from tests.support.handling import soon
from tests.support.waiting import scaled


class TestRecording:
    """The class `RecordingPublisher`."""

    async def test_it_is_a_publisher(self) -> None:
        """Every way to publish is recorded, in order; receipts and errors are those of a publisher."""
        one, two, three = revoked(1), revoked(2), KeyRotated(key_id="k")
        async with RecordingPublisher() as publisher:
            assert isinstance(publisher, Publisher)
            assert isinstance(await publisher.publish(one), Receipt)
            await publisher.publish(EventType.SESSION_DESTROYED, {"session_id": "s"})
            receipts = await publisher.publish_many([two, three])
            with pytest.raises(EventTooLarge):
                await publisher.publish(TokenRevoked(token_id="t", metadata={"x": "x" * 20_000}))
        assert [receipt.event_id for receipt in receipts] == [two.id, three.id]
        assert [publisher.published[0], *publisher.published[2:]] == [one, two, three]
        assert publisher.assert_published(SessionDestroyed).session_id == "s"
        with pytest.raises(Closed):
            await publisher.publish(one)
        publisher.clear()
        assert publisher.published == []

    async def test_it_passes_events_on(self) -> None:
        """With a transport, its subscribers get the events."""
        transport = MemoryTransport()
        publisher = RecordingPublisher(transport)
        async with Listener(transport) as listener:
            await publisher.publish(revoked(1))
            await listener.hears("token-1")
        assert listener.events[0].source == "tests"

    async def test_what_was_published_is_found(self) -> None:
        """The first event of that class with these values is returned; a base class matches, too."""
        publisher = RecordingPublisher()
        wanted = TokenRevoked(token_id="t2", reason="stolen")
        await publisher.publish_many(
            [TokenRevoked(token_id="t1"), wanted, TokenRevoked(token_id="t3", reason="stolen")]
        )
        assert publisher.assert_published(TokenRevoked, reason="stolen") is wanted
        assert publisher.assert_published(TokenRevoked, token_id="t2", expires_at=None) is wanted
        assert publisher.assert_published(Event, id=wanted.id) is wanted
        publisher.assert_not_published(TokenRevoked, token_id="t4")
        publisher.assert_not_published(KeyRotated)

    async def test_a_failure_shows_what_there_is(self) -> None:
        """The failure lists each published event with its explicit fields, and the differences for that class."""
        publisher = RecordingPublisher()
        with pytest.raises(AssertionError) as nothing:
            publisher.assert_published(TokenRevoked)
        await publisher.publish_many([TokenRevoked(token_id="t1", reason="logout"), KeyRotated(key_id="k1")])
        with pytest.raises(AssertionError) as other:
            publisher.assert_published(TokenRevoked, token_id="t2", reason="logout")
        assert str(nothing.value) == "no TokenRevoked() was published; nothing was"
        assert str(other.value).splitlines() == [
            "no TokenRevoked(token_id='t2', reason='logout') was published; published were:",
            "  1. TokenRevoked(token_id='t1', reason='logout')",
            "     differs in token_id",
            "  2. KeyRotated(key_id='k1')",
        ]

    async def test_an_event_that_should_not_be_published(self) -> None:
        """The failure shows the event; without arguments, any event fails."""
        publisher = RecordingPublisher()
        publisher.assert_not_published()
        await publisher.publish(TokenRevoked(token_id="t1"))
        shown = r"^number 1 of those published is TokenRevoked\(token_id='t1'\)$"
        with pytest.raises(AssertionError, match=shown):
            publisher.assert_not_published()
        with pytest.raises(AssertionError, match=shown):
            publisher.assert_not_published(TokenRevoked, token_id="t1")

    @pytest.mark.parametrize("ask", [RecordingPublisher.assert_published, RecordingPublisher.assert_not_published])
    def test_an_unknown_field(self, ask: Callable[..., object]) -> None:
        """A field that the class does not have is an InvalidOption."""
        with pytest.raises(InvalidOption, match="KeyRotated has no jti, token_id"):
            ask(RecordingPublisher(), KeyRotated, token_id="t", jti="t")

    @pytest.mark.parametrize("error", [PublishFailed, PublishOutcomeUnknown])
    async def test_it_can_fail(self, error: type[PublishFailed | PublishOutcomeUnknown]) -> None:
        """The next events fail and are not recorded; accepted events of the same call are."""
        publisher = RecordingPublisher()
        publisher.fail_next(error, count=2)
        with pytest.raises(error):
            await publisher.publish(revoked(1))
        with pytest.raises(error) as caught:
            await publisher.publish_many([revoked(2), revoked(3)])
        await publisher.publish(revoked(4))
        assert len(caught.value.receipts) == 1
        assert [event.subject for event in publisher.published] == ["token-3", "token-4"]

    def test_it_fails_in_two_ways(self) -> None:
        """Any other exception class is refused."""
        wrong: Any = PublishError
        with pytest.raises(InvalidOption, match=r"^error: "):
            RecordingPublisher().fail_next(wrong)


class TestEventually:
    """The function `eventually`."""

    async def test_it_returns_what_it_waited_for(self) -> None:
        """Returns the first true result of a function or a coroutine function."""
        answers = iter([0, None, "yes"])

        async def ask() -> int | str | None:
            return next(answers)

        assert await eventually(ask) == "yes"
        assert await eventually(lambda: 7) == 7

    async def test_it_gives_up(self) -> None:
        """The failure names the deadline and the condition, described at the end."""
        asked: list[int] = []
        with pytest.raises(AssertionError, match=rf"^not within {scaled(0.02):g} s: more than \d+$"):
            await eventually(lambda: asked.append(1), within=0.02, what=lambda: f"more than {len(asked)}")

        def the_impossible() -> bool:
            return False

        with pytest.raises(AssertionError, match="the_impossible"):
            await eventually(the_impossible, within=0.02)

    async def test_an_error_is_not_waited_out(self) -> None:
        """An exception of the predicate is raised at once."""
        with pytest.raises(ZeroDivisionError):
            await eventually(lambda: 1 / 0)

    async def test_a_cancellation_that_the_predicate_swallows(self) -> None:
        """It ends the wait at once, although the predicate returned."""
        asked = asyncio.Event()

        async def ask() -> bool:
            asked.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return False

        waiting = asyncio.create_task(eventually(ask, within=60.0))
        await soon(asked.wait())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(waiting)


async def test_fixtures_belong_together(
    jwt_events_transport: FaultyTransport,
    jwt_events_faults: Faults,
    jwt_events_publisher: RecordingPublisher,
    jwt_events_clock: ManualClock,
    jwt_events_revocations: RevocationList,
) -> None:
    """The fixtures share one transport and one clock."""
    assert jwt_events_transport.faults is jwt_events_faults
    async with jwt_events_revocations as revocations:
        await jwt_events_publisher.publish(revoked(1))
        await eventually(lambda: revocations.check({"jti": "token-1"}) is Verdict.REVOKED)
        jwt_events_faults.hold()
        jwt_events_clock.advance(6)
        assert revocations.check({"jti": "token-2"}) is Verdict.STALE


async def test_importing_it_needs_no_pytest() -> None:
    """Only the fixtures and the conformance suite import pytest."""
    program = "import sys, jwt_events.testing; sys.exit('pytest' in sys.modules)"
    result = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert result.returncode == 0


class TestElsewhere:
    """Use in another project, with its own configuration of pytest."""

    async def test_the_example(self, tmp_path: Path) -> None:
        """The testing example passes as a copy."""
        copy = tmp_path / "test_example.py"
        copy.write_text((Path(__file__).parents[2] / "examples" / "11_testing.py").read_text())
        assert "4 passed" in await _pytest(copy)

    async def test_own_transport(self, tmp_path: Path) -> None:
        """A transport that loses the first delivery of every batch fails, and the failure shows the values."""
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["jwt_events.testing.plugin"]\n')
        module = tmp_path / "test_mine.py"
        module.write_text(_OWN_TRANSPORT)
        output = await _pytest(module, "-k", "many_events or is_counted", "-o", "asyncio_mode=auto")
        assert "FAILED test_mine.py::TestMine::test_many_events_in_one_call_arrive_in_order" in output
        assert re.search(r"1 failed, \d+ passed", output)
        assert re.search(r"^E +assert b'", output, re.MULTILINE)


_OWN_TRANSPORT = """
import pytest

from jwt_events import MemoryTransport
from jwt_events.testing.conformance import TransportConformance


class Mine(MemoryTransport):
    def append(self, payloads):
        kept = payloads if len(payloads) == 1 else [*payloads[1:], payloads[-1]]
        return super().append(kept)


class TestMine(TransportConformance):
    @pytest.fixture
    def make_transport(self):
        return lambda name="", *, start="new": Mine(start=start)
"""


async def _pytest(*arguments: str | Path) -> str:
    """Run pytest on a module outside this project, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:valkey", "-p", "no:cacheprovider", *arguments),
        cwd=Path(arguments[0]).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(scaled(60)):
        output, _ = await process.communicate()
    return output.decode()
