"""Execution of key fetches: one at a time, shared by all callers that need it, and in the background ahead of need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from jwt_events._internal.cancellation import end, timeout
from jwt_events._internal.clock import boottime
from jwt_events._internal.functions import awaited, in_thread, is_coroutine_function
from jwt_events.errors import Closed
from jwt_events.instrumentation import KeysObserver
from jwt_events.keys import _jwks as jwks
from jwt_events.keys._schedule import FetchPlan, FetchRequest, Now

FetchFunction = Callable[[], Awaitable[Any] | Mapping[str, Any]]
"""Fetches the issuer's JWK Set and returns it decoded, as a dictionary: a coroutine function, or a plain function,
which runs in a thread."""

_MAX_WAIT = 3600.0  # event loops refuse very long timeouts


def current_time() -> Now:
    """Read both clocks."""
    return Now(boottime(), time.time())


@dataclass(eq=False, slots=True)
class Fetch:
    """A fetch that is running or done.

    Attributes:
        request: why and when it started.
        task: runs the fetch; ends without an exception, whatever the result.
        failure: the error that it failed with; ``None`` if there is none.
    """

    request: FetchRequest
    task: asyncio.Task[None] = field(init=False)
    failure: BaseException | None = None

    async def wait(self) -> None:
        """Wait until the fetch is done. Cancelling this does not cancel the fetch.

        Raises:
            Closed: the fetch was cancelled by `Fetcher.stop`.
        """
        await asyncio.wait([self.task])
        if self.task.cancelled():
            raise Closed("the keys were closed while they were being fetched")


class Fetcher:
    """Runs fetches as tasks, on request or when the plan says so.

    Args:
        fetch: fetches the JWK Set.
        timeout: seconds that a fetch may take.
        plan: decides when to fetch.
        deliver: called with the keys of each successful fetch.
        observer: told of the outcome of each.

    Attributes:
        current: the fetch that is running; ``None`` if there is none.
        fetches: count of fetches that were started.
        failures: count of fetches that failed.
    """

    def __init__(
        self,
        fetch: FetchFunction,
        *,
        timeout: float,
        plan: FetchPlan,
        deliver: Callable[[jwks.KeySet], None],
        observer: KeysObserver,
    ) -> None:
        self._fetch = fetch
        self._timeout = timeout
        self._plan = plan
        self._deliver = deliver
        self._observer = observer
        self._scheduler: asyncio.Task[None] | None = None
        self._plan_changed: asyncio.Event | None = None
        self.current: Fetch | None = None
        self.fetches: int = 0
        self.failures: int = 0

    def start_fetch(self, request: FetchRequest) -> Fetch:
        """Start a fetch; none may be running."""
        self._plan.record_start(request)
        self.fetches += 1
        self.current = fetch = Fetch(request)
        fetch.task = asyncio.create_task(self._run_fetch(fetch), name="jwt_events key fetch")
        fetch.task.add_done_callback(self._clear_current)
        return fetch

    def start_if_due(self, now: Now) -> None:
        """Start a fetch if the plan says so and none is running."""
        at, reason = self._plan.due()
        if at <= now.monotonic and self.current is None:
            self.start_fetch(FetchRequest(reason, now))

    def _clear_current(self, _: asyncio.Task[None]) -> None:
        self.current = None

    async def _call(self) -> Any:
        if is_coroutine_function(self._fetch):
            result: Any = self._fetch()
        else:
            result = await in_thread(self._fetch, name="jwt_events key fetch")
        return await awaited("fetch", result)

    async def _run_fetch(self, fetch: Fetch) -> None:
        try:
            async with timeout(self._timeout):
                document = await self._call()
            keys = jwks.read(document)
        except (SystemExit, KeyboardInterrupt, asyncio.CancelledError):
            raise  # they end the program, or this task
        except BaseException as error:  # noqa: BLE001 - of the application
            fetch.failure = error
            self.failures += 1
            self._observer.fetched(succeeded=False)
            self._plan.record_failure(fetch.request, current_time(), error)
            # Not the error's text, in which an HTTP library may quote the URL with the secrets in it.
            logger.warning("fetching the signing keys failed", error=type(error).__name__, failures=self.failures)
        else:
            self._plan.record_success(fetch.request, current_time(), keys.named)
            self._observer.fetched(succeeded=True)
            self._deliver(keys)

    def start(self) -> None:
        """Start fetching in the background whenever the plan says so.

        Raises:
            Closed: it is started already.
        """
        if self._scheduler is not None:
            raise Closed("the keys are kept up to date already")
        self._plan_changed = asyncio.Event()
        self._scheduler = asyncio.create_task(self._follow_plan(self._plan_changed), name="jwt_events key scheduler")

    def notify_plan_changed(self) -> None:
        """Make the background task read the plan again."""
        if self._plan_changed is not None:
            self._plan_changed.set()

    async def stop(self) -> None:
        """Cancel all tasks and wait for them. Idempotent; they end even if this is cancelled."""
        tasks = [] if self._scheduler is None else [self._scheduler]
        if self.current is not None:
            tasks.append(self.current.task)
        self._scheduler = self._plan_changed = None
        await end(tasks)

    async def _follow_plan(self, plan_changed: asyncio.Event) -> None:
        while True:
            if self.current is not None:
                await asyncio.wait([self.current.task])
            plan_changed.clear()
            self.start_if_due(now := current_time())
            if self.current is None:
                pause = min(self._plan.due()[0] - now.monotonic, _MAX_WAIT)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await plan_changed.wait()
