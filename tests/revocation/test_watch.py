"""Watches: event, callback or cancellation the moment a token in use is revoked."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from jwt_events import (
    Closed,
    InvalidClaims,
    InvalidOption,
    MemoryTransport,
    RevocationList,
    RevokedTokenError,
    SessionDestroyed,
    TokenRevoked,
    Watch,
)
from jwt_events.revocation._watch import WatchRegistry
from tests.support.handling import publish, running, soon
from tests.support.records import recorded
from tests.support.waiting import scaled, wait_until

CLAIMS = {"jti": "t", "sub": "alice", "sid": "s", "azp": "app", "iat": 1}


@pytest.fixture
async def revocations() -> AsyncIterator[RevocationList]:
    """An open list without rules."""
    async with RevocationList(MemoryTransport()) as revocations:
        yield revocations


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Watch]:
    """The watches that were checked against the rules, one entry for each check."""
    checked: list[Watch] = []
    check = WatchRegistry._check

    def note(registry: WatchRegistry, watch: Watch) -> None:
        checked.append(watch)
        check(registry, watch)

    monkeypatch.setattr(WatchRegistry, "_check", note)
    return checked


def revoke(revocations: RevocationList, **fields: Any) -> None:
    """Apply a revocation to the list."""
    revocations.apply(TokenRevoked(**fields))


def watched(revocations: RevocationList) -> int:
    """Return the count of tokens that the list watches."""
    return len(revocations._view.watches)


class TestNotifying:
    """A watch reports the revocation, once."""

    async def test_over_the_bus(self) -> None:
        """A revocation over the bus sets the event, and the watch has its rule."""
        transport = MemoryTransport()
        async with RevocationList(transport) as revocations, revocations.watch(CLAIMS) as watch:
            assert not watch.revoked.is_set()
            assert watch.rule is None
            assert repr(watch) == "<Watch live>"
            await publish(transport, SessionDestroyed(session_id="s"))
            await soon(watch.revoked.wait())
            assert watch.rule is not None
            assert watch.rule.kind == "session"
            assert repr(watch) == "<Watch revoked>"

    @pytest.mark.parametrize(
        "fields",
        [
            {"token_id": "t"},
            {"session_id": "s"},
            {"user_id": "alice"},
            {"client_id": "app"},
            {"user_id": "alice", "client_id": "app"},
        ],
    )
    async def test_whatever_the_rule_is_about(self, revocations: RevocationList, fields: dict[str, str]) -> None:
        """Every kind of rule reaches the watch."""
        async with revocations.watch(CLAIMS) as watch:
            revoke(revocations, **fields)
            assert watch.revoked.is_set()

    @pytest.mark.parametrize(
        "fields",
        [
            {"token_id": "other"},
            {"token_id": "refresh-1", "session_id": "s", "user_id": "alice"},
            {"user_id": "bob"},
            {"user_id": "alice", "client_id": "other"},
            {"user_id": "alice", "issued_before": 0},
        ],
    )
    async def test_other_tokens(self, revocations: RevocationList, fields: dict[str, Any]) -> None:
        """A watch ignores other tokens of its session, as a rotated refresh token, and cutoffs before its ``iat``."""
        async with revocations.watch(CLAIMS, cancel=True) as watch:
            revoke(revocations, **fields)
            await asyncio.sleep(0)
            assert not watch.revoked.is_set()

    async def test_plain_callback(self, revocations: RevocationList) -> None:
        """A plain function is called at once, and only once, however many rules follow."""
        calls: list[str] = []
        async with revocations.watch(CLAIMS, lambda: calls.append("called")):
            revoke(revocations, token_id="t")
            assert calls == ["called"]
            revoke(revocations, token_id="t")
            revoke(revocations, user_id="alice")
        assert calls == ["called"]

    async def test_coroutine_callback(self, revocations: RevocationList) -> None:
        """A coroutine function runs as a task, also when the watch ends before it does."""
        told, go = asyncio.Event(), asyncio.Event()

        async def tell() -> None:
            await go.wait()
            told.set()

        async with revocations.watch(CLAIMS, tell):
            revoke(revocations, token_id="t")
        go.set()
        await soon(told.wait())

    async def test_a_callback_that_fails(self, revocations: RevocationList) -> None:
        """A failing callback is logged without its message, and the next watch is notified."""

        def fail() -> None:
            raise ValueError("t of alice")

        def give_up() -> None:
            raise asyncio.CancelledError

        with recorded() as records:
            async with (
                revocations.watch(CLAIMS, fail),
                revocations.watch(CLAIMS, give_up),
                revocations.watch(CLAIMS) as last,
            ):
                revoke(revocations, user_id="alice")
                assert last.revoked.is_set()
        failed = records.of("callback failed", "ERROR")
        assert {record["error"].partition(" ")[0] for record in failed} == {"ValueError", "CancelledError"}
        assert "alice" not in str(failed)

    async def test_revoked_already(self, revocations: RevocationList) -> None:
        """A token that is already revoked is reported at once."""
        calls: list[str] = []
        revoke(revocations, user_id="alice")
        async with revocations.watch(CLAIMS, lambda: calls.append("called")) as watch:
            assert watch.revoked.is_set()
        assert calls == ["called"]

    async def test_thousands_of_one_user(self, revocations: RevocationList, checked: list[Watch]) -> None:
        """One rule notifies all watched tokens of a user; events about others do not check them."""
        watches = [revocations.watch({**CLAIMS, "jti": f"t{number}", "sid": f"s{number}"}) for number in range(3_000)]
        for watch in watches:
            await watch.__aenter__()
        checked.clear()
        for number in range(1_000):
            revoke(revocations, token_id=f"other-{number}", user_id="alice")
        assert checked == []
        revoke(revocations, session_id="s7")
        assert checked == [watches[7]]
        revoke(revocations, user_id="alice")
        assert all(watch.revoked.is_set() for watch in watches)
        for watch in watches:
            await watch.__aexit__(None, None, None)
        assert watched(revocations) == 0


class TestCancelling:
    """``cancel=True`` cancels the block."""

    async def test_ends_the_block(self, revocations: RevocationList) -> None:
        """The block is cancelled where it waits, and raises `RevokedTokenError` with the rule."""
        async with running(_serve(revocations)) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            revoke(revocations, session_id="s")
            with pytest.raises(RevokedTokenError, match="session") as ended:
                await soon(serving)
        assert ended.value.rule == "session"
        assert serving.cancelling() == 0
        assert watched(revocations) == 0

    async def test_revoked_already(self, revocations: RevocationList) -> None:
        """The block of a token that is already revoked is never entered."""
        revoke(revocations, token_id="t")
        with pytest.raises(RevokedTokenError):
            async with revocations.watch(CLAIMS, cancel=True):
                pytest.fail("it was entered")
        assert watched(revocations) == 0

    async def test_before_the_block_awaits(self, revocations: RevocationList) -> None:
        """A block that revokes its own token without an await raises as well, and no cancellation comes later."""
        with pytest.raises(RevokedTokenError):
            async with revocations.watch(CLAIMS, cancel=True):
                revoke(revocations, token_id="t")
        await asyncio.sleep(0)

    async def test_a_block_that_fails(self, revocations: RevocationList) -> None:
        """The block's own error is raised, and the pending cancellation does not come later."""

        async def serve() -> None:
            async with revocations.watch(CLAIMS, cancel=True):
                revoke(revocations, token_id="t")
                raise KeyError

        with pytest.raises(KeyError):
            await serve()
        await asyncio.sleep(0)

    async def test_a_block_that_is_stubborn(self, revocations: RevocationList) -> None:
        """A block that swallows the cancellation and ends raises as well."""

        async def serve() -> None:
            async with revocations.watch(CLAIMS, cancel=True):
                revoke(revocations, token_id="t")
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        with pytest.raises(RevokedTokenError):
            await soon(serve())

    async def test_a_block_that_tidies_up(self, revocations: RevocationList) -> None:
        """A second rule does not cancel what a block awaits in its ``finally``."""
        tidied = False

        async def serve() -> None:
            nonlocal tidied
            async with revocations.watch(CLAIMS, cancel=True):
                try:
                    await asyncio.Event().wait()
                finally:
                    revoke(revocations, user_id="alice")
                    await asyncio.sleep(0)
                    tidied = True

        async with running(serve()) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            revoke(revocations, token_id="t")
            with pytest.raises(RevokedTokenError):
                await soon(serving)
        assert tidied

    @pytest.mark.parametrize("first", ["revoked", "cancelled"])
    @pytest.mark.parametrize("turns", [0, 1, 2])
    async def test_cancelled_by_others_too(self, revocations: RevocationList, first: str, turns: int) -> None:
        """A cancellation by another task at about the same time is not swallowed."""
        serving = asyncio.create_task(_serve(revocations))
        await wait_until(lambda: watched(revocations) == 1)
        actions: list[Callable[[], object]] = [lambda: revoke(revocations, token_id="t"), serving.cancel]
        for action in actions if first == "revoked" else reversed(actions):
            action()
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.wait([serving])
        if first == "revoked" and turns:
            assert isinstance(serving.exception(), RevokedTokenError)  # it had ended
        else:
            assert serving.cancelled()

    async def test_cancelled_by_others_before_either_arrives(self, revocations: RevocationList) -> None:
        """The same, for a block that ends before either cancellation arrives."""

        async def serve() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with revocations.watch(CLAIMS, cancel=True):
                revoke(revocations, token_id="t")
                task.cancel()

        serving = asyncio.create_task(serve())
        await asyncio.wait([serving])
        assert serving.cancelled()

    async def test_cancelled_without_a_revocation(self, revocations: RevocationList) -> None:
        """A block that is cancelled by another task alone is cancelled."""
        async with running(_serve(revocations)) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            serving.cancel()
            await asyncio.wait([serving])
        assert serving.cancelled()
        assert watched(revocations) == 0


class TestNesting:
    """``cancel=True`` with timeouts, task groups and other watches."""

    async def test_inside_a_timeout(self, revocations: RevocationList) -> None:
        """A timeout around the watch does not absorb the revocation, nor the watch the timeout."""
        async with running(_within(30, lambda: _serve(revocations))) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            revoke(revocations, token_id="t")
            with pytest.raises(RevokedTokenError):
                await soon(serving)
        with pytest.raises(TimeoutError):
            await _within(0.01, lambda: _serve(revocations, jti="other"))

    async def test_around_a_timeout(self, revocations: RevocationList) -> None:
        """A timeout inside the block raises its own error, and the block that of the revocation."""

        async def serve() -> None:
            async with revocations.watch(CLAIMS, cancel=True):
                with pytest.raises(TimeoutError):
                    await _within(0.01, asyncio.Event().wait)
                async with asyncio.timeout(scaled(30)):
                    revoke(revocations, token_id="t")
                    await asyncio.Event().wait()

        with pytest.raises(RevokedTokenError):
            await soon(serve())

    async def test_in_a_task_group(self, revocations: RevocationList) -> None:
        """In a task of a group, it fails the group, which cancels the other tasks."""

        async def for_ever() -> None:
            await asyncio.Event().wait()

        async def serve_all() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(for_ever())
                group.create_task(_serve(revocations))

        async with running(serve_all()) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            revoke(revocations, token_id="t")
            with pytest.raises(ExceptionGroup) as ended:
                await soon(serving)
        assert ended.group_contains(RevokedTokenError)

    async def test_around_a_task_group(self, revocations: RevocationList) -> None:
        """Around a group, it cancels all tasks of the group, and its error is not wrapped."""
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

        async def serve_all() -> None:
            async with revocations.watch(CLAIMS, cancel=True), asyncio.TaskGroup() as group:
                group.create_task(work())
                group.create_task(work())

        async with running(serve_all()) as serving:
            await wait_until(lambda: watched(revocations) == 1)
            await asyncio.sleep(0)
            revoke(revocations, token_id="t")
            with pytest.raises(RevokedTokenError):
                await soon(serving)
        assert ended == ["ended", "ended"]

    async def test_one_in_another(self, revocations: RevocationList) -> None:
        """Of two watches of one task, the one whose token is revoked ends its own block."""

        async def serve_inner() -> None:
            async with revocations.watch({"jti": "inner"}, cancel=True):
                revoke(revocations, token_id="inner")
                await asyncio.Event().wait()

        async def serve() -> str:
            async with revocations.watch({"jti": "outer"}, cancel=True):
                with pytest.raises(RevokedTokenError):
                    await serve_inner()
                await asyncio.sleep(0)
                return "went on"

        assert await soon(serve()) == "went on"

    async def test_both_at_once(self, revocations: RevocationList) -> None:
        """If one rule revokes both, the outer block ends with the error."""

        async def serve() -> None:
            async with revocations.watch({"jti": "1", "sub": "alice"}, cancel=True):
                async with revocations.watch({"jti": "2", "sub": "alice"}, cancel=True):
                    revoke(revocations, user_id="alice")
                    await asyncio.Event().wait()
                pytest.fail("the outer block went on")

        with pytest.raises(RevokedTokenError):
            await soon(serve())


class TestNotEntered:
    """Watches that were made, and not entered, watch nothing: that is loud."""

    async def test_never(self, revocations: RevocationList) -> None:
        """It cannot be waited for, and Python warns when it is collected."""
        watch = revocations.watch(CLAIMS, lambda: None)
        assert repr(watch) == "<Watch not entered>"
        with pytest.raises(Closed, match="async with"):
            await watch.revoked.wait()
        with pytest.warns(RuntimeWarning, match="a watch was never entered"):
            del watch

    async def test_arguments(self, revocations: RevocationList) -> None:
        """A callback that needs an argument, which it will not get, is refused."""
        with pytest.raises(InvalidOption, match="on_revoked: must be callable with no arguments"):
            revocations.watch(CLAIMS, lambda reason: None)


class TestLeaving:
    """Watches that have ended."""

    async def test_nothing_is_kept(self, revocations: RevocationList) -> None:
        """The list keeps no reference to a watch that has ended."""
        async with revocations.watch(CLAIMS) as watch, revocations.watch(CLAIMS):
            assert watched(revocations) == 2
        trace = weakref.ref(watch)
        del watch
        gc.collect()
        assert trace() is None
        assert revocations._view.watches._by_subject == {}

    async def test_nothing_is_reported(self, revocations: RevocationList) -> None:
        """A watch that has ended reports nothing."""
        calls: list[str] = []
        async with revocations.watch(CLAIMS, lambda: calls.append("called")) as watch:
            pass
        revoke(revocations, token_id="t")
        assert calls == []
        assert not watch.revoked.is_set()

    async def test_while_it_is_revoked(self, revocations: RevocationList) -> None:
        """A callback that ends other watches while all are being notified affects none of them."""
        tasks: list[asyncio.Task[None]] = []
        calls: list[int] = []

        def call(number: int) -> None:
            calls.append(number)
            for task in tasks:
                task.cancel()

        async def serve(number: int) -> None:
            async with revocations.watch(CLAIMS, lambda: call(number)):
                await asyncio.Event().wait()

        tasks += [asyncio.create_task(serve(number)) for number in range(10)]
        await wait_until(lambda: watched(revocations) == 10)
        revoke(revocations, user_id="alice")
        await asyncio.wait(tasks)
        assert sorted(calls) == list(range(10))
        assert watched(revocations) == 0

    async def test_bad_arguments(self, revocations: RevocationList) -> None:
        """Invalid claims, and a callback that is not callable, are refused before the token is watched."""
        with pytest.raises(InvalidClaims):
            revocations.watch({"jti": 1})
        not_callable: Any = "no function"
        with pytest.raises(InvalidOption, match="on_revoked"):
            revocations.watch(CLAIMS, not_callable)

    async def test_closed(self) -> None:
        """A list that is not open cannot watch: it would receive no revocation."""
        revocations = RevocationList(MemoryTransport())
        with pytest.raises(Closed):
            revocations.watch(CLAIMS)
        async with revocations:
            pass
        with pytest.raises(Closed):
            revocations.watch(CLAIMS)


class TestListCloses:
    """Nothing would tell of a revocation once the list is closed, so every watch ends with it."""

    async def test_told(self) -> None:
        """The event is set and the callback is called, once; a token that was revoked before stays revoked."""
        revocations, calls = RevocationList(MemoryTransport()), list[str]()
        async with AsyncExitStack() as stack:
            await revocations.__aenter__()
            watch = await stack.enter_async_context(revocations.watch(CLAIMS, lambda: calls.append("called")))
            revoked = await stack.enter_async_context(revocations.watch({"jti": "other"}))
            revoke(revocations, token_id="other")
            await revocations.aclose()
            await revocations.aclose()
            assert (watch.revoked.is_set(), watch.reason, watch.rule, calls) == (True, "closed", None, ["called"])
            assert (revoked.reason, repr(watch)) == ("revoked", "<Watch closed>")
            with pytest.raises(Closed, match="was closed"):
                watch.renew(CLAIMS)

    async def test_cancels(self) -> None:
        """A block is cancelled, and raises `Closed`; a list that is opened again watches new tokens."""
        revocations = RevocationList(MemoryTransport())
        for _ in range(2):
            async with revocations:
                serving = asyncio.create_task(_serve(revocations))
                await wait_until(lambda: watched(revocations) == 1)
            with pytest.raises(Closed, match="was closed"):
                await soon(serving)
            assert watched(revocations) == 0

    async def test_by_its_user(self) -> None:
        """A block that closes the list ends with `Closed` itself, and the list can be opened again."""
        revocations = RevocationList(MemoryTransport())

        async def close() -> None:
            async with revocations.watch(CLAIMS, cancel=True):
                await revocations.aclose()
                await asyncio.Event().wait()

        await revocations.__aenter__()
        with pytest.raises(Closed, match="was closed"):
            await soon(close())
        async with revocations, revocations.watch(CLAIMS) as watch:
            assert watch.reason is None

    async def test_entered_afterwards(self) -> None:
        """A watch that is entered when the list was closed ends at once."""
        revocations = RevocationList(MemoryTransport())
        async with revocations:
            early, late = revocations.watch(CLAIMS), revocations.watch(CLAIMS, cancel=True)
        async with early as watch:
            assert watch.reason == "closed"
        with pytest.raises(Closed, match="was closed"):
            await late.__aenter__()
        assert watched(revocations) == 0


async def _serve(revocations: RevocationList, **claims: object) -> None:
    async with revocations.watch({**CLAIMS, **claims}, cancel=True):
        await asyncio.Event().wait()


async def _within(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(scaled(seconds)):
        await work()
