"""Cancellations that are swallowed on their way, as by `asyncio.wait_for` before Python 3.12, take effect."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.credentials import CredentialProvider

from jwt_events import (
    ConnectionFailed,
    Event,
    KeysUnavailable,
    MemoryTransport,
    Publisher,
    PublishFailed,
    RedisStream,
    Retry,
    RevocationList,
    RevokedTokenError,
    SigningKeys,
    Subscriber,
    TokenRevoked,
    TransportError,
)
from jwt_events._internal.cancellation import (
    GRACE,
    HostCancellation,
    cancel_until_done,
    end,
    noticing_cancellation,
    timeout,
)
from tests.support.examples import revoked
from tests.support.handling import publish, running, soon
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import scaled, wait_until

CLAIMS = {"jti": "t", "iat": 1}


async def swallow(times: int) -> str:
    """Wait for ever, but end as if nothing had been after swallowing some cancellations."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return "ended by itself"


async def ask(client: Redis) -> None:
    """Use redis-py without end, as handlers do: most cancellations are lost in it before Python 3.12."""
    while True:
        await client.ping()


async def limited(work: Awaitable[object]) -> None:
    """Await something whose time is up at once."""
    async with timeout(0.001):
        await work


def requests() -> int:
    """Count the cancellations that the task that runs has not absorbed."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def passed(seconds: float) -> asyncio.Future[None]:
    """Make a future that is done after a while: what a clean-up waits for."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(seconds, future.set_result, None)
    return future


class TestTimeout:
    """A block whose time is up is cancelled until it ends, and has failed."""

    @pytest.mark.parametrize("times", [0, 1, 2, 20])
    async def test_swallowed(self, times: int) -> None:
        """Whatever the block swallows, `TimeoutError` is raised, and no request to cancel is left."""

        async def work() -> None:
            await soon(swallow(times))
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await limited(work())
        assert requests() == 0

    async def test_swallowed_to_the_end(self) -> None:
        """A block that swallows the last cancellation and returns has failed, too."""
        with pytest.raises(TimeoutError):
            await limited(swallow(3))
        assert requests() == 0

    async def test_in_time(self) -> None:
        """A block that ends in time is left alone, as is one without a limit."""
        async with timeout(scaled(60)) as limit:
            await asyncio.sleep(0)
        async with timeout(None):
            await asyncio.sleep(0)
        assert not limit.expired()

    async def test_clean_up_may_wait(self) -> None:
        """What waits in ``finally`` because of the cancellation is not cancelled there."""
        cleaned = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await passed(0.1)
                cleaned.append("all")

        with pytest.raises(TimeoutError):
            await limited(work())
        assert cleaned == ["all"]

    async def test_clean_up_in_all_places(self) -> None:
        """The same in an asynchronous generator, behind another exception, and in ``__aexit__``."""
        cleaned: list[str] = []

        class Resource:
            async def __aenter__(self) -> None: ...

            async def __aexit__(self, *_: object) -> None:
                await passed(0.05)
                cleaned.append("resource")

        async def generate() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                try:
                    raise ValueError("while cleaning up")
                finally:
                    await passed(0.05)
                    cleaned.append("generator")

        async def work() -> None:
            async with Resource():
                async for _ in generate():
                    pass

        with pytest.raises(ValueError, match="while cleaning up"):
            await limited(work())
        assert cleaned == ["generator", "resource"]
        assert requests() == 0

    async def test_a_clean_up_that_never_ends(self) -> None:
        """After the grace period it is cancelled there, too."""

        async def work() -> None:
            host = HostCancellation(grace=0.05)
            asyncio.get_running_loop().call_soon(host.cancel, "ended")
            try:
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                if not await host.absorb(error):
                    raise

        await soon(work())
        assert requests() == 0

    async def test_an_older_cancellation_is_no_clean_up(self) -> None:
        """A block inside of ``except CancelledError`` is not taken for one that cleans up because of the time-out."""

        async def work() -> None:
            try:
                raise asyncio.CancelledError  # noqa: TRY301 - the older one
            except asyncio.CancelledError:
                await limited(swallow(20))

        with pytest.raises(TimeoutError):
            await soon(work())

    async def test_cancelled_by_others_too(self) -> None:
        """A cancellation from elsewhere is not absorbed with those of the time-out."""
        task: asyncio.Task[None]

        async def work() -> None:
            async with timeout(0.001):
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                task.cancel("from elsewhere")
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await soon(asyncio.wait([task]))
        assert task.cancelled()

    async def test_around_others(self) -> None:
        """Scopes of asyncio inside of the block do not take the cancellation for theirs."""

        async def work() -> None:
            async with asyncio.timeout(scaled(60)), asyncio.TaskGroup() as group:
                group.create_task(swallow(1))
                await swallow(5)
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await limited(work())
        assert requests() == 0

    async def test_children(self, client: Redis) -> None:
        """Children of task groups, which cancel them only once, do not keep the block from ending; nor theirs."""

        async def nested() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(swallow(5))
                group.create_task(ask(client))

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(nested())
                for _ in range(5):
                    group.create_task(ask(client))

        for _ in range(5):
            with pytest.raises(TimeoutError):
                await soon(limited(work()))
        assert requests() == 0

    async def test_children_that_clean_up(self) -> None:
        """A child that is cleaning up is left alone, as the block itself is."""
        cleaned: list[str] = []

        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await passed(0.1)
                cleaned.append("child")

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())

        with pytest.raises(TimeoutError):
            await limited(work())
        assert cleaned == ["child"]


class TestTasks:
    """Tasks that are to end are cancelled until they have."""

    async def test_end(self) -> None:
        """Those that swallow end, too; those that had ended are left out."""
        tasks = [asyncio.create_task(swallow(times)) for times in (0, 1, 5)]
        await asyncio.sleep(0)
        assert await soon(end(tasks)) == set()
        assert all(task.done() for task in tasks)
        assert await end(tasks) == set()

    async def test_of_a_task_in_step_with_timers(self) -> None:
        """One whose result has arrived whenever a timer is due, and which loses a cancellation then, ends as well."""
        loop, lost = asyncio.get_running_loop(), 0
        reply: asyncio.Future[None] = loop.create_future()
        here, there = socket.socketpair()

        async def ask_in_step() -> None:
            nonlocal reply, lost
            while True:
                reply = loop.create_future()
                try:
                    await reply
                except asyncio.CancelledError:
                    lost += 1
                    if lost > 1 and reply.cancelled():  # otherwise lost, as by `wait_for` before Python 3.12
                        raise

        def arrive() -> None:
            if not reply.done():
                reply.set_result(None)

        with here, there:
            there.send(b"x")  # never read, so that there is something to read in each turn of the loop
            loop.add_reader(here, arrive)
            task = asyncio.create_task(ask_in_step())
            try:
                await asyncio.sleep(0)
                assert await end([task], within=scaled(2)) == set()
            finally:
                loop.remove_reader(here)
                cancel_until_done(task)

    async def test_of_a_task_that_has_ended(self) -> None:
        """It is not looked into: Python 3.12.1 crashes if it is asked for the coroutine of an eager task that ended."""

        class Task(asyncio.tasks._PyTask):  # type: ignore[name-defined,misc]  # written in Python, so it is never eager
            """A task that cannot tell its coroutine when it has ended."""

            def get_coro(self) -> Any:
                """Return the coroutine."""
                assert not self.done()
                return super().get_coro()

        hosted = list[HostCancellation]()

        async def begin() -> None:
            hosted.append(HostCancellation())

        await Task(begin(), loop=asyncio.get_running_loop())
        hosted[0].cancel("too late")
        assert hosted[0].is_requested

    async def test_end_within(self) -> None:
        """Those that do not end in time are returned, and are cancelled on."""
        task = asyncio.create_task(swallow(100))
        await asyncio.sleep(0)
        assert await end([task], within=0.001) == {task}
        assert await soon(task) == "ended by itself"

    async def test_end_is_cancelled(self) -> None:
        """Cancelling the waiting does not stop the cancelling."""
        task = asyncio.create_task(swallow(20))
        await asyncio.sleep(0)
        async with running(end([task])) as ending:
            await asyncio.sleep(0)
            ending.cancel()
        assert await soon(task) == "ended by itself"

    async def test_redis_py(self, client: Redis) -> None:
        """A task that does nothing but ask a server by redis-py ends, every time."""
        for _ in range(20):
            task = asyncio.create_task(ask(client))
            await asyncio.sleep(0.001)
            cancel_until_done(task)
            await soon(asyncio.wait([task]))
            assert task.cancelled()

    async def test_noticing(self) -> None:
        """A cancellation that was swallowed inside arrives at the end of the block; one that was absorbed does not."""

        async def work() -> None:
            with noticing_cancellation():
                await swallow(1)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with noticing_cancellation(), suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()


class TestHosts:
    """The task around ``async with`` is cancelled until the block has ended."""

    @pytest.mark.parametrize("times", [1, 5])
    async def test_subscriber(self, times: int) -> None:
        """A host that swallows cancellations and then ends its block by itself gets the failure."""
        with pytest.raises(TransportError):
            await soon(self._host(swallow(times)))
        assert requests() == 0

    async def test_subscriber_of_a_host_that_uses_redis_py(self, client: Redis) -> None:
        """A host that asks a server by redis-py all the time is interrupted, every time."""
        for _ in range(10):
            with pytest.raises(TransportError):
                await soon(self._host(ask(client)))

    @staticmethod
    async def _host(work: Awaitable[object]) -> None:
        """Do some work beside a subscriber that fails."""
        transport = ScriptedTransport()
        subscriber = Subscriber(transport)
        subscriber.on()(_ignore)
        async with subscriber:
            asyncio.get_running_loop().call_later(0.001, transport.fail)
            await work

    async def test_watch(self, client: Redis) -> None:
        """A connection that is served by code that swallows ends when its token is revoked."""
        transport = MemoryTransport()
        async with RevocationList(transport) as revocations:

            async def serve(number: int) -> None:
                async with revocations.watch(CLAIMS, cancel=True):
                    await (ask(client) if number % 2 else swallow(3))

            serving = [asyncio.create_task(serve(number)) for number in range(8)]
            await asyncio.sleep(0.01)
            await publish(transport, TokenRevoked(token_id="t"))
            try:
                await soon(asyncio.wait(serving))
            finally:
                await end(serving)
            assert {type(one.exception()) for one in serving} == {RevokedTokenError}

    async def test_disarmed(self) -> None:
        """What is disarmed cancels nothing; what was begun goes on."""
        host = HostCancellation()
        host.disarm()
        host.cancel("too late")
        assert not host.is_requested
        assert not await host.absorb(None)


class TestHandlers:
    """Handlers end when they are to, whatever they are made of."""

    async def test_handler_timeout(self, client: Redis, url: str, key: str) -> None:
        """A handler that asks a server without end fails after its time."""
        subscriber = Subscriber(RedisStream(url, key), handler_timeout=0.05, retry=Retry(attempts=1))

        @subscriber.on()
        async def handle(event: Event) -> None:
            await ask(client)

        async with subscriber:
            await publish(RedisStream(url, key), *(revoked(number) for number in range(10)))
            await wait_until(lambda: subscriber.stats.failed == 10)
        assert subscriber.stats.handled == 0

    async def test_returned_too_late(self) -> None:
        """A handler that swallows the time-out and returns has failed; a retry is a new chance."""
        transport, calls = MemoryTransport(), list[str]()
        subscriber = Subscriber(transport, handler_timeout=0.02, retry=Retry(attempts=2, initial=0.001))

        @subscriber.on()
        async def handle(event: Event) -> None:
            calls.append("called")
            if len(calls) == 1:
                await swallow(1)

        async with subscriber:
            await publish(transport, revoked(1))
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert len(calls) == 2

    async def test_swallowed_again_and_again(self) -> None:
        """A handler that swallows one cancellation after another is not left alone for a time after each."""
        transport, cancelled = MemoryTransport(), list[float]()
        subscriber = Subscriber(transport, handler_timeout=0.02, retry=Retry(attempts=1))

        @subscriber.on()
        async def handle(event: Event) -> None:
            for _ in range(3):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(time.monotonic())

        async with subscriber:
            await publish(transport, revoked(1))
            await wait_until(lambda: subscriber.stats.failed == 1)
        assert cancelled[-1] - cancelled[0] < GRACE

    async def test_shutdown(self, client: Redis) -> None:
        """Handlers that use redis-py without end do not outlive their subscriber, nor count as handled."""
        transport = MemoryTransport()
        subscriber = Subscriber(transport, drain_timeout=0.01)
        started = []

        @subscriber.on()
        async def handle(event: Event) -> None:
            started.append(event)
            await ask(client)

        async with subscriber:
            await publish(transport, *(revoked(number) for number in range(10)))
            await wait_until(lambda: len(started) == 10)
            await soon(subscriber.drain())
        assert (subscriber.stats.in_flight, subscriber.stats.handled) == (0, 0)


class TestFunctionsOfTheApplication:
    """Callbacks and fetches end with what called them."""

    async def test_callback(self) -> None:
        """A callback that swallows does not keep a list from closing."""
        transport, called = MemoryTransport(), asyncio.Event()

        async def on_revoked() -> None:
            called.set()
            await swallow(3)

        async with Publisher(transport) as publisher, RevocationList(transport) as revocations:
            async with revocations.watch(CLAIMS, on_revoked):
                await publisher.publish(TokenRevoked(token_id="t"))
                await soon(called.wait())
            await soon(revocations.aclose())

    async def test_fetch(self) -> None:
        """A fetch of signing keys that swallows its time-out has failed."""

        async def fetch() -> dict[str, object]:
            await swallow(3)
            return {"keys": []}

        keys = SigningKeys(fetch, timeout=0.05)
        with pytest.raises(KeysUnavailable):
            await soon(keys.get("kid"))
        await keys.aclose()


class _Credentials(CredentialProvider):
    """Swallows cancellations while it fetches a password, which takes for ever."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return nothing of use."""
        self.asked += 1
        await swallow(3)
        return "nobody", "nothing"


class TestConnecting:
    """Connecting, in which redis-py and the application's credential provider may swallow, ends when it is to."""

    @pytest.fixture
    def credentials(self) -> _Credentials:
        """A provider that swallows."""
        return _Credentials()

    @pytest.fixture
    def transport(self, url: str, key: str, credentials: _Credentials) -> RedisStream:
        """A stream behind that provider."""
        client = Redis.from_url(url)
        client.connection_pool.connection_kwargs["credential_provider"] = credentials
        return RedisStream(client, key)

    async def test_in_time(self, transport: RedisStream) -> None:
        """An attempt to connect takes no longer than it may."""
        with pytest.raises(ConnectionFailed):
            await soon(transport.connector.connect(within=0.05))

    async def test_subscribing_is_cancelled(self, transport: RedisStream, credentials: _Credentials) -> None:
        """Cancelling whoever subscribes ends that."""
        subscriber = Subscriber(transport)
        subscriber.on()(_ignore)
        async with running(subscriber.run()) as run:
            await wait_until(lambda: credentials.asked)
            cancel_until_done(run)
            await soon(asyncio.wait([run]))
            assert run.cancelled()

    async def test_publisher_closes(self, transport: RedisStream) -> None:
        """A publisher that has no connection yet closes."""
        publisher = Publisher(transport, timeout=0.1)
        with pytest.raises(PublishFailed):
            await publisher.publish(revoked(1))
        await soon(publisher.aclose())

    async def test_list_closes(self, transport: RedisStream, credentials: _Credentials) -> None:
        """A list that has no connection yet closes."""
        revocations = RevocationList(transport)
        async with running(revocations.__aenter__()):
            await wait_until(lambda: credentials.asked)
            await soon(revocations.aclose())


async def _ignore(event: Event) -> None:
    """Handle an event."""
