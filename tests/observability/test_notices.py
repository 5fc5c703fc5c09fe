"""What a program is told that has not turned on the logs: on standard error, once each."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from redis.asyncio import Redis

from jwt_events import (
    Event,
    Gap,
    MemoryTransport,
    Publisher,
    RedisStream,
    Retry,
    RevocationList,
    Subscriber,
    TransportError,
)
from jwt_events._internal.callbacks import Callbacks
from jwt_events._internal.cancellation import timeout
from jwt_events._internal.describing import describe
from jwt_events._internal.functions import in_thread
from jwt_events._internal.notices import Notices
from jwt_events.testing import ManualClock
from tests.faults.restarting import MakeServer, Restartable
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish
from tests.support.raw import call
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until

_SERVICE = """
    import asyncio
    from jwt_events import MemoryTransport, Publisher, Subscriber, TokenRevoked

    transport = MemoryTransport()
    subscriber = Subscriber(transport)

    @subscriber.on(TokenRevoked)
    async def forget(event):
        print(event.tokenid)

    async def main():
        async with Publisher(transport) as publisher, subscriber:
            for _ in range(3):
                await publisher.publish(TokenRevoked(token_id="secret-token"))
            while subscriber.stats.failed < 3:
                await asyncio.sleep(0)

    asyncio.run(main())
"""


def test_a_typing_error(tmp_path: Path) -> None:
    """A service whose handler has a typing error says what is wrong, and where, once, and how to see more."""
    path = tmp_path / "service.py"
    path.write_text(textwrap.dedent(_SERVICE))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert re.search(
        r"handler failed.* handler=forget .*AttributeError at service\.py:10 in forget: no 'tokenid'", line
    )
    assert "loguru.logger.enable('jwt_events')" in line
    assert "secret-token" not in line


_NOTHING: dict[str, str] = {}


def _exit() -> None:
    sys.exit(3)


async def _timed_out() -> BaseException:
    """Return the error of a block whose time was up."""

    async def wait() -> None:
        await asyncio.Event().wait()

    try:
        async with timeout(0.001):
            await wait()
    except TimeoutError as error:
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError


@pytest.fixture
def off() -> Iterator[None]:
    """This module's lines are not in the log, like those of the library while it is not enabled."""
    logger.disable(__name__)
    yield
    logger.enable(__name__)


class TestNotices:
    """When something is told, and where."""

    @pytest.mark.usefixtures("off")
    def test_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """Each kind is told once, by a warning of the logging module; an empty field is left out."""
        notices = Notices()
        for kind in ("a", "b", "a", "b"):
            notices.tell("ERROR", "dead letter", once=kind, position=kind, handler=None)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert ["position=b (told once" in record.getMessage() for record in caplog.records] == [False, True]
        assert "handler" not in caplog.text

    @pytest.mark.usefixtures("off")
    def test_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        """However many kinds there are, a program is not flooded."""
        notices = Notices()
        for kind in range(1_000):
            notices.tell("ERROR", "dead letter", once=kind, position=str(kind))
        assert len(caplog.records) == 32

    def test_in_the_log_instead(self, caplog: pytest.LogCaptureFixture) -> None:
        """A program that sees the log finds every line there, with its level and fields, and is told nothing else."""
        notices = Notices()
        with recorded() as records:
            for _ in range(2):
                notices.tell("ERROR", "dead letter", once="a", position="1-0")
        assert records.of("dead letter", "ERROR") == [{"position": "1-0"}] * 2
        assert caplog.records == []

    def test_a_log_that_is_written_nowhere(self) -> None:
        """Enabled, but without a sink, the log is not seen."""
        program = (
            "from loguru import logger; from jwt_events._internal.notices import Notices; logger.remove();"
            "logger.enable('jwt_events'); Notices().tell('ERROR', 'dead letter', once=1, position='1-0')"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr.startswith("jwt_events: dead letter: position=1-0 (told once")


class TestTold:
    """What is told."""

    async def test_of_a_subscriber(self, caplog: pytest.LogCaptureFixture) -> None:
        """The first failure of each handler, a gap, bytes that are no event, and that listening has failed."""
        transport = ScriptedTransport()
        subscriber = Subscriber(transport, retry=Retry(attempts=2, initial=0.001))

        @subscriber.on()
        async def fail(event: Event) -> None:
            raise LookupError("secret")

        async def serve() -> None:
            async with subscriber:
                transport.deliver(revoked(1), revoked(2), gaps=(Gap("1-0", "trimmed", 7),), payloads=(b"poison",))
                await wait_until(lambda: subscriber.stats.failed == 2)
                transport.fail()
                await asyncio.Event().wait()

        with pytest.raises(TransportError, match="the script says so"):
            await serve()
        told = [record.getMessage() for record in caplog.records]
        assert [line.split(": ")[1] for line in told] == [
            "events may have been missed",
            "delivery skipped",
            "handler failed and will be called again",
            "listening failed",
        ]
        assert "LookupError at test_notices.py" in told[2]
        assert "secret" not in caplog.text

    async def test_of_a_list(self, caplog: pytest.LogCaptureFixture) -> None:
        """That it turns stale, and that a callback failed."""
        transport, clock = MemoryTransport(), ManualClock()
        revocations = RevocationList(transport, clock=clock)
        async with revocations:
            revocations.on()(lambda _: _NOTHING["secret"])
            await publish(transport, revoked(1), revoked(2))
            await wait_until(lambda: revocations.stats.events == 2)
            clock.advance(60)
            await wait_until(lambda: "state=stale" in caplog.text)
        told = [record.getMessage() for record in caplog.records]
        assert ["callback failed" in line for line in told] == [True, False]
        assert "KeyError at test_notices.py" in told[0]
        assert "secret" not in caplog.text

    async def test_of_callbacks(self, caplog: pytest.LogCaptureFixture) -> None:
        """A coroutine function that fails is told like a plain one."""

        async def fail() -> None:
            raise LookupError

        callbacks = Callbacks()
        callbacks.call(fail)
        await wait_until(lambda: "LookupError at test_notices.py" in caplog.text)
        await callbacks.aclose()

    async def test_of_a_callback_that_awaits_what_was_cancelled(self, caplog: pytest.LogCaptureFixture) -> None:
        """It was not cancelled itself, so it has failed."""
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()

        async def fail() -> None:
            await cancelled

        callbacks = Callbacks()
        callbacks.call(fail)
        await wait_until(lambda: "CancelledError at test_notices.py" in caplog.text)
        await callbacks.aclose()

    async def test_of_a_server_that_is_away(
        self, own_server: MakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A subscriber tells once that it cannot connect again."""
        restartable = Restartable(own_server, tmp_path)
        server = await restartable.start({})
        subscriber = Subscriber(RedisStream(server.url, "k"))
        subscriber.on()(Recorder())
        async with subscriber:
            for _ in range(2):
                await restartable.kill()
                await wait_until(lambda: "connection attempt failed" in caplog.text)
                await restartable.start({})
                await wait_until(lambda: subscriber.is_live)
        await restartable.kill()
        (told,) = [record.getMessage() for record in caplog.records if "attempt" in record.getMessage()]
        assert "transport=stream destination=k" in told

    @pytest.mark.parametrize(
        ("right", "line"), [("-xack", "settling will be tried again"), ("-xclaim", "a lease was not renewed")]
    )
    async def test_of_a_group_that_lacks_a_right(
        self, own_server: MakeServer, caplog: pytest.LogCaptureFixture, right: str, line: str
    ) -> None:
        """What it cannot do is told with the refusal, once."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            stream, gate = RedisStream(server.url, "k", group="g", claim_after=0.3), Gate()
            subscriber = Subscriber(stream)
            subscriber.on()(gate)
            async with subscriber:
                await call(client, "ACL", "SETUSER", "default", right)
                await publish(RedisStream(server.url, "k"), revoked(1), revoked(2))
                if right == "-xack":
                    gate.open()
                await wait_until(lambda: line in caplog.text)
                gate.open()
                await call(client, "ACL", "SETUSER", "default", "+@all")
        (told,) = [record.getMessage() for record in caplog.records if line in record.getMessage()]
        assert "NOPERM" in told

    async def test_of_a_publisher_that_may_not_trim(
        self, own_server: MakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """That nothing is removed from the stream is told, although each publish succeeds."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "default", "-xtrim")
            async with Publisher(RedisStream(server.url, "k", ledger=False)) as publisher:
                await publisher.publish(revoked(1))
                await publisher.publish(revoked(2))
        (told,) = [record.getMessage() for record in caplog.records]
        assert "maintenance failed" in told


class TestDescribe:
    """The place of an error in the program, and the name that was missing."""

    def test_the_line_of_the_program(self) -> None:
        """Frames of installed packages and of Python are passed over."""
        for fail, text in (
            (lambda: revoked(1).tokenid, "AttributeError at test_notices.py:"),  # type: ignore[attr-defined]  # is meant
            (lambda: re.compile("("), " at test_notices.py:"),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one depends on the function
                fail()
            assert text in describe(caught.value)

    def test_the_line_that_was_cancelled(self) -> None:
        """Of an error that Python raised for the program, such as a time-out, the cause is named that was there."""
        assert re.fullmatch(
            r"TimeoutError from CancelledError at test_notices\.py:\d+ in wait", describe(asyncio.run(_timed_out()))
        )

    async def test_what_a_thread_raised(self) -> None:
        """What must not end the event loop is named all the same."""
        with pytest.raises(RuntimeError) as raised:
            await in_thread(sys.exit, name="exits")
        assert describe(raised.value).startswith("RuntimeError at test_notices.py")
        error = await asyncio.gather(in_thread(_exit, name="exits"), return_exceptions=True)
        assert re.fullmatch(r"RuntimeError from SystemExit at test_notices\.py:\d+ in _exit", describe(error[0]))

    def test_names(self) -> None:
        """A missing attribute or name is named; a key, which may be a secret, is not."""
        with pytest.raises(AttributeError) as no_attribute:
            revoked(1).tokenid  # type: ignore[attr-defined]  # noqa: B018 - is meant
        assert describe(no_attribute.value).endswith(": no 'tokenid'")
        with pytest.raises(NameError) as no_name:
            eval("tokenid")
        assert describe(no_name.value).endswith(": no 'tokenid'")
        with pytest.raises(KeyError) as no_key:
            _NOTHING["secret"]
        assert "secret" not in describe(no_key.value)
