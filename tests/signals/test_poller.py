"""`SetPoller` against a transmitter that serves polls on loopback, with real servers of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from jwt_events import InvalidOption, MemoryTransport, Metrics, Publisher, RedisStream
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import Closed, PublishError, TransmitterError, TransmitterRefused
from jwt_events.guard import readiness_of
from jwt_events.signals import CAEP, PollerState, SecurityEvents, SetPoller, SetStream
from jwt_events.signals._identity import event_id
from jwt_events.signals._polling import read_reply
from jwt_events.testing import RecordingPublisher, Transmitter, receiver_cases
from tests.support.faults import frozen
from tests.support.logs import everything_logged
from tests.support.waiting import scaled, wait_until

IDP = Transmitter()
REVOKED = f"{CAEP}session-revoked"
SECRET = "Bearer of-the-receiver"
SENTINEL = "s3cr3t-value"


def events(**options: Any) -> SecurityEvents:
    """Return a receiver of security events."""
    return SecurityEvents(IDP.issuer, IDP.audience, IDP.keys(), **options)


@asynccontextmanager
async def polling(publisher: Any, served: Any, **options: Any) -> AsyncIterator[SetPoller]:
    """Run a poller; quick, so that nothing has to be waited for long."""
    usual: dict[str, Any] = {"authorization": SECRET, "lease": scaled(3.0), "timeout": scaled(5.0)}
    async with SetPoller(publisher, options.pop("events", events()), served.poll_url, **usual | options) as poller:
        yield poller


async def ids_in(client: redis.asyncio.Redis, key: str) -> list[str]:
    """Return the ids of the events in a stream."""
    entries: Any = await client.xrange(key)
    return [json.loads(value)["id"] for _, fields in entries for value in fields.values()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pauses after failures short."""
    monkeypatch.setattr("jwt_events.signals._rounds._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("jwt_events.signals._rounds._MAX_PAUSE", 0.05)


class TestDelivery:
    """From the transmitter to the stream."""

    @pytest.mark.parametrize("interval", [None, 0.05], ids=["long", "short"])
    async def test_events_arrive(self, url: str, key: str, client: redis.asyncio.Redis, interval: float | None) -> None:
        """Tokens that wait, and those that come, are published and then acknowledged, in long and in short polls."""
        async with IDP.serve(authorization=SECRET) as served, Publisher(RedisStream(url, key)) as publisher:
            names = [served.emit(REVOKED, IDP.subject(f"u{number}")) for number in range(7)]
            async with polling(publisher, served, interval=interval, max_events=3) as poller:
                await wait_until(lambda: len(served.acknowledged) == 7)
                late = served.emit(REVOKED, IDP.subject("late"))
                await wait_until(lambda: late in served.acknowledged)
                assert poller.is_live
                assert poller.state is PollerState.POLLING
                assert poller.failure is None
            expected = [event_id(IDP.issuer, name) for name in [*names, late] if name is not None]
            assert await ids_in(client, key) == expected
            first, *others = [(poll["maxEvents"], poll["returnImmediately"]) for poll in served.polls]
            assert first == (3, True)  # so that it is known soon that the stream is alive
            assert {*others} - {(0, True)} == {(3, interval is not None)}

    @pytest.mark.parametrize("case", receiver_cases(IDP), ids=lambda case: case.name)
    async def test_receiver_cases(self, case: Any) -> None:
        """What the receiver tests of Shared Signals ask: each token is acknowledged, or refused with its code."""
        publisher = RecordingPublisher()
        async with IDP.serve(authorization=SECRET, long_poll=0.05) as served, publisher, polling(publisher, served):
            for token, answer in zip(case.tokens, case.answers, strict=True):
                before = len(served.acknowledged) + len(served.refused)
                name = served.enqueue(token)
                await wait_until(lambda before=before: len(served.acknowledged) + len(served.refused) > before)
                assert (name in served.refused) == (answer is not None)
                if answer is not None:
                    assert served.refused.pop(name)["err"] == answer
                    served.acknowledged.append("")
        assert len({event.id for event in publisher.published}) == case.events

    async def test_every_bad_token(self) -> None:
        """Every forged or broken token gets its code in `setErrs`, in few polls, and none is published."""
        bad = IDP.bad_security_events()
        publisher = RecordingPublisher()
        async with IDP.serve(authorization=SECRET) as served, publisher:
            names = {served.enqueue(token, f"bad-{number}"): err for number, (token, err) in enumerate(bad.values())}
            good = served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served):
                await wait_until(lambda: served.acknowledged == [good])
                await wait_until(lambda: len(served.refused) == len(names))
            told = {name: error["err"] for name, error in served.refused.items()}
        assert told == names
        assert [event.id for event in publisher.published] == [event_id(IDP.issuer, str(good))]

    async def test_another_name(self) -> None:
        """A token under the name of another one is refused: an acknowledgement would be about the wrong one."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            served.enqueue(IDP.security_event(REVOKED, IDP.subject("alice")), "another")
            async with polling(publisher, served):
                await wait_until(lambda: "another" in served.refused)
            assert served.refused["another"]["err"] == "invalid_request"
            assert publisher.published == []

    async def test_an_event_that_cannot_be_published(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """It is refused, and those beside it are published."""
        async with (
            IDP.serve(authorization=SECRET) as served,
            Publisher(RedisStream(url, key), max_event_bytes=600) as publisher,
        ):
            large = served.emit(REVOKED, IDP.subject("u" * 500))
            small = served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served):
                await wait_until(lambda: small in served.acknowledged and large in served.refused)
        assert await ids_in(client, key) == [event_id(IDP.issuer, str(small))]


@pytest.mark.usefixtures("quick")
class TestFailures:
    """What a transmitter or a server may do; nothing is lost, and the poller goes on."""

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            ({"status": 500}, TransmitterError),
            ({"status": 401}, TransmitterRefused),
            ({"status": 404}, TransmitterRefused),
            ({"status": 429, "headers": {"Retry-After": "0"}}, TransmitterError),
            ({"status": 307, "headers": {"Location": "http://127.0.0.1:9/steal"}}, TransmitterRefused),
            ({"status": 200, "body": b"garbage"}, TransmitterError),
            ({"status": 200, "body": b'{"sets": ["x"]}'}, TransmitterError),
            ({"status": 200, "body": b'{"sets": 1' + b"0" * 5_000 + b"}"}, TransmitterError),
            ({"status": 200, "body": b'{"sets": {"a": "x", "a": "y"}}'}, TransmitterError),
            ({"status": 200, "body": b'{"sets": {}, "moreAvailable": 1}'}, TransmitterError),
            ({"status": 200, "body": b"[" * 10_000}, TransmitterError),
            ({"status": 200, "body": b"\xff"}, TransmitterError),
            ({"status": 200, "body": b" " * 3_000_000}, TransmitterError),
            ({"status": 200, "body": b"x", "headers": {"Content-Encoding": "gzip"}}, TransmitterError),
        ],
        ids=lambda value: (
            str(value.get("status")) + str(value.get("body", b"")[:24]) if isinstance(value, dict) else ""
        ),
    )
    async def test_answers(self, answer: dict[str, Any], error: type[Exception]) -> None:
        """After an answer that is no use it says so, polls again, and gets what was there."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            served.fail(**answer)
            polls = CollectorRegistry()
            with everything_logged() as lines:
                async with polling(publisher, served, metrics=Metrics(polls)) as poller:
                    await wait_until(lambda: any("poll failed" in line for line in lines))
                    name = served.emit(REVOKED, IDP.subject("alice"))
                    await wait_until(lambda: name in served.acknowledged)
                    await wait_until(lambda: poller.failure is None)
            outcome = "refused" if error is TransmitterRefused else "failed"
            labels = {"source": IDP.issuer, "outcome": outcome}
            assert polls.get_sample_value("jwt_events_signal_polls_total", labels) == 1
            assert SECRET not in "".join(lines)
            assert served.url not in "".join(line for line in lines if "jwt_events" in line)

    async def test_odd_tokens(self) -> None:
        """What is no token, or stands under an odd name, is refused alone: it does not hold up those beside it."""
        odd: dict[str, Any] = {"a": 1, "b": None, "": "x", "c": ["[" * 500], "d\n": "e.y.J", "e" * 3_000: "x.y.z"}
        odd |= {"\ud800": "x", "big": "x" * 200_000, "deep": {"a": {"b": {}}}}
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            served.pending |= odd
            good = served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served, interval=0.05):
                await wait_until(lambda: good in served.acknowledged)
                await wait_until(lambda: served.refused.keys() == odd.keys())
            assert {error["err"] for error in served.refused.values()} == {"invalid_request"}

    async def test_retry_after(self) -> None:
        """It does not poll again before the time that the transmitter names."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            served.fail(429, headers={"Retry-After": "3000"})
            async with polling(publisher, served) as poller:
                await wait_until(lambda: poller.failure is not None)
                assert isinstance(poller.failure, TransmitterError)
                assert (poller.failure.status, poller.failure.retry_after) == (429, 3000.0)
                assert served.polls == []

    async def test_silence(self) -> None:
        """A transmitter that does not answer in time is asked again."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            released = served.hang()
            served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served, timeout=0.2):
                await wait_until(lambda: len(served.acknowledged) == 1)
            released.set()

    async def test_down(self) -> None:
        """A transmitter that is not there: not live, with the reason; a name that is no address, too."""
        async with IDP.serve() as served:
            pass
        async with RecordingPublisher() as publisher, polling(publisher, served) as poller:
            await wait_until(lambda: poller.failure is not None)
            assert "not reached" in str(poller.failure)
            assert not poller.is_live
            assert poller.state is PollerState.STALE

    async def test_authorization_is_renewed(self) -> None:
        """The function is asked for each request, and a refusal is followed by another one."""
        values = iter(["Bearer old", "Bearer old"])

        async def authorization() -> str:
            return next(values, SECRET)

        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            name = served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served, authorization=authorization):
                await wait_until(lambda: name in served.acknowledged)

    @pytest.mark.parametrize("wrong", [None, 7, "two\nlines", ""], ids=str)
    async def test_authorization_that_is_none(self, wrong: Any) -> None:
        """A function that returns something else is told so, in `failure`, and nothing is sent."""
        async with IDP.serve() as served, RecordingPublisher() as publisher:
            async with polling(publisher, served, authorization=lambda: wrong) as poller:
                await wait_until(lambda: poller.failure is not None)
                assert isinstance(poller.failure, InvalidOption)
            assert served.polls == []

    async def test_the_server_hangs(self, own_server: Callable[[], EmbeddedServer]) -> None:
        """Nothing is acknowledged that the server has not; afterwards everything is there, under the same ids."""
        async with (
            own_server() as server,
            redis.asyncio.Redis.from_url(server.url) as client,
            IDP.serve(authorization=SECRET) as served,
            Publisher(RedisStream(server.url, "test:poll"), timeout=0.2) as publisher,
            polling(publisher, served, lease=scaled(20.0)) as poller,
        ):
            first = served.emit(REVOKED, IDP.subject("first"))
            await wait_until(lambda: first in served.acknowledged)
            with frozen(server):
                names = [served.emit(REVOKED, IDP.subject(f"u{number}")) for number in range(5)]
                await wait_until(lambda: isinstance(poller.failure, PublishError))
                assert served.acknowledged == [first]
            await wait_until(lambda: {*names} <= {*served.acknowledged})
            expected = {event_id(IDP.issuer, str(name)) for name in [first, *names]}
            assert {*await ids_in(client, "test:poll")} == expected

    async def test_keys_that_are_unavailable(self) -> None:
        """A token whose key cannot be fetched is neither acknowledged nor refused, and taken later."""
        fails = [True]

        def keys(kid: str | None) -> Any:
            if fails:
                raise RuntimeError(SENTINEL)
            return IDP.keys().get(str(kid))

        receiver = SecurityEvents(IDP.issuer, IDP.audience, keys)
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            name = served.emit(REVOKED, IDP.subject("alice"))
            with everything_logged() as lines:
                async with polling(publisher, served, events=receiver) as poller:
                    await wait_until(lambda: isinstance(poller.failure, RuntimeError))
                    assert not served.acknowledged
                    assert not served.refused
                    fails.clear()
                    await wait_until(lambda: name in served.acknowledged)
            assert SENTINEL not in "".join(lines)

    async def test_a_transmitter_that_ignores_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tokens that come again and again are answered each time, after growing pauses, and not in a tight loop."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            monkeypatch.setattr(served, "_settle", lambda _: None)
            served.emit(REVOKED, IDP.subject("alice"))
            async with polling(publisher, served) as poller:
                await wait_until(lambda: len(served.polls) > 4)
                assert poller._rounds._failures > 0
            assert len({event.id for event in publisher.published}) == 1


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_reply(body: bytes) -> None:
    """Whatever comes is a reply, or a typed error."""
    try:
        reply = read_reply(body)
    except TransmitterError:
        return
    assert isinstance(reply.sets, dict)


class TestLeaving:
    """Leaving the context."""

    async def test_last_answers(self) -> None:
        """What was published is acknowledged when the poller is left, by a request that asks for nothing."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            async with polling(publisher, served) as poller:
                await wait_until(lambda: len(served.polls) == 2)  # the first is replied to at once
                released = served.hang()  # the poll that carries the acknowledgement
                name = served.emit(REVOKED, IDP.subject("alice"))
                await wait_until(lambda: len(publisher.published) == 1 and not served._failures)
                assert served.acknowledged == []
            assert served.acknowledged == [name]
            assert (served.polls[-1]["maxEvents"], served.polls[-1]["ack"]) == (0, [name])
            assert poller.state is PollerState.CLOSED
            assert not poller.is_live
            released.set()

    async def test_again(self) -> None:
        """It can be opened again, but not twice at once."""
        async with IDP.serve() as served, RecordingPublisher() as publisher:
            poller = SetPoller(publisher, events(), served.poll_url)
            for _ in range(2):
                async with poller:
                    await wait_until(lambda: poller.is_live)
                    with pytest.raises(Closed):
                        await poller.__aenter__()
                assert not poller.is_live


class TestStaleness:
    """Whether the stream is alive, and who is told."""

    async def test_readiness(self) -> None:
        """A poller that is passed to the probe makes it red until there is proof, and when the stream is paused."""
        told: list[str] = []
        async with IDP.serve(long_poll=0.05) as served, RecordingPublisher() as publisher:
            served.streams["s"] = {"stream_id": "s", "status": "enabled"}
            poller = SetPoller(publisher, events(), served.poll_url, on_status=told.append)
            assert readiness_of(poller) == (
                503,
                {"ready": False, "revocations": [], "pollers": [{"state": "closed", "staleness": None}]},
            )
            async with poller:
                await wait_until(lambda: readiness_of(poller)[0] == 200)
                served.set_status("s", "paused")
                await wait_until(lambda: readiness_of(poller)[0] == 503)
                assert poller.staleness == float("inf")
                served.set_status("s", "enabled")
                await wait_until(lambda: readiness_of(poller)[0] == 200)
        assert told == ["paused", "enabled"]

    async def test_verification(self) -> None:
        """With management, a verification event that was asked for is the proof; one with another state is refused."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            stream = SetStream(IDP.issuer, authorization=SECRET, configuration_url=served.configuration_url)
            async with stream:
                await stream.create()
            async with polling(publisher, served, stream=stream) as poller:
                assert stream.is_open
                await wait_until(lambda: poller.is_live)
                wrong = served.enqueue(IDP.verification("not asked for"))
                await wait_until(lambda: wrong in served.refused)
                assert served.refused[wrong]["err"] == "invalid_state"
            assert not stream.is_open

    async def test_verification_that_cannot_be_asked_for(self) -> None:
        """If it cannot be asked for there is no proof, and the failure says why; the tokens come all the same."""
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            stream = SetStream(IDP.issuer, authorization=SECRET, configuration_url=served.configuration_url)
            async with polling(publisher, served, stream=stream) as poller:
                name = served.emit(REVOKED, IDP.subject("alice"))
                await wait_until(lambda: name in served.acknowledged)
                await wait_until(lambda: isinstance(poller.failure, InvalidOption))
                assert "0 streams" in str(poller.failure)
                assert not poller.is_live

    async def test_silent_stream(self, caplog: pytest.LogCaptureFixture) -> None:
        """Answers to polls do not hide a stream that is dead: verification events are asked for, and none comes."""
        async with IDP.serve(authorization=SECRET, long_poll=0.05) as served, RecordingPublisher() as publisher:
            stream = SetStream(IDP.issuer, authorization=SECRET, configuration_url=served.configuration_url)
            async with stream:
                await stream.create()
                async with polling(
                    publisher, served, stream=stream, timeout=0.3, verify_every=0.2, max_staleness=0.6
                ) as poller:
                    await wait_until(lambda: poller.is_live)
                    served.lost = 1_000
                    with caplog.at_level("WARNING", "jwt_events"):
                        await wait_until(lambda: "signals are stale" in caplog.text)
                    await wait_until(lambda: not poller.is_live)  # one that was on its way may have come
                    assert poller.failure is None
                    assert served.lost < 1_000
                    served.lost = 0
                    await wait_until(lambda: poller.state is PollerState.POLLING)

    async def test_metrics(self) -> None:
        """The age of the proof, the polls and the tokens are counted; the age is gone when the poller is."""
        registry = CollectorRegistry()
        name, labels = "jwt_events_signal_staleness_seconds", {"source": IDP.issuer}
        async with IDP.serve(authorization=SECRET) as served, RecordingPublisher() as publisher:
            async with polling(publisher, served, metrics=Metrics(registry)):
                served.emit(REVOKED, IDP.subject("alice"))
                await wait_until(lambda: len(served.acknowledged) == 1)
                value = registry.get_sample_value(name, labels)
                assert value is not None
                assert 0 <= value < 60
            assert registry.get_sample_value(name, labels) is None
        received = {"source": IDP.issuer, "kind": "session-revoked", "outcome": "published"}
        assert registry.get_sample_value("jwt_events_signals_received_total", received) == 1


class TestOptions:
    """Options that cannot work are refused where they are passed."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("url", "http://id.example/poll"),
            ("url", "ftp://id.example"),
            ("url", f"https://user:{SENTINEL}@id.example/poll"),
            ("url", "https://id.example/poll#x"),
            ("url", "https://[bad"),
            ("url", "https://id.example/a b"),
            ("url", 7),
            ("interval", 0),
            ("max_events", 1_001),
            ("timeout", -1),
            ("max_staleness", 50),
            ("verify_every", 0),
            ("lease", 0),
            ("authorization", "two\nlines"),
            ("authorization", 7),
            ("ssl_context", False),
            ("stream", "s"),
            ("metrics", 1),
            ("on_status", 1),
            ("events", 1),
            ("publisher", 1),
        ],
    )
    def test_refused(self, option: str, value: Any) -> None:
        """The error names the option, and never repeats what could be a secret."""
        publisher = Publisher(RedisStream("redis://localhost"))
        given: dict[str, Any] = {"publisher": publisher, "events": events(), "url": "https://id.example/poll"} | {
            option: value
        }
        with pytest.raises(InvalidOption) as caught:
            SetPoller(**given | {option: value})
        assert caught.value.option == option
        assert SENTINEL not in str(caught.value)

    def test_memory(self) -> None:
        """On a transport without a server there is no fleet, and no lease."""
        assert SetPoller(Publisher(MemoryTransport()), events(), "https://id.example/poll").is_holder
