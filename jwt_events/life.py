"""One life of a subscriber: from subscribed to unsubscribed, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

from loguru import logger

from jwt_events.dispatcher import Dispatcher
from jwt_events.errors import Closed
from jwt_events.events import Event
from jwt_events.intake import Intake


class Life:
    """One life of a subscriber, from subscribed to unsubscribed."""

    def __init__(self, intake: Intake, dispatcher: Dispatcher, resources: AsyncExitStack, concurrency: int) -> None:
        self.dispatcher = dispatcher
        self.failure: Exception | None = None
        self.host: asyncio.Task[Any] | None = asyncio.current_task()
        self.inbox: asyncio.Queue[Event | None] | None = None
        self.room = asyncio.Semaphore(concurrency)
        self._intake = intake
        self._resources = resources
        self._ending = asyncio.Lock()
        self._interrupted: asyncio.Task[Any] | None = None
        self._is_handing_out = False
        self._helper: asyncio.Task[None] | None = None
        self.reader = asyncio.create_task(intake.run(), name="jwt_events reader")
        self.reader.add_done_callback(self._reader_ended)

    @contextmanager
    def handing_out(self) -> Iterator[asyncio.Queue[Event | None]]:
        """Switch from handlers to an inbox, which ends with ``None`` when the reader does."""
        if self._is_handing_out:
            raise Closed("events() is running already")
        if self.inbox is None:
            self.inbox = asyncio.Queue()
            if self.reader.done():
                self.inbox.put_nowait(None)
        self._is_handing_out = True  # a failure is told by the iterator
        try:
            yield self.inbox
        except GeneratorExit:  # the loop was left early, perhaps before it was told
            asyncio.get_running_loop().call_soon(self._interrupt_host)
            raise
        finally:
            self._is_handing_out = False

    def abandoned(self) -> list[Event]:
        """Take out what was read ahead and will not be asked for any more."""
        if self.inbox is None or self._is_handing_out:
            return []
        events: list[Event] = []
        while not self.inbox.empty():
            if (event := self.inbox.get_nowait()) is not None:
                events.append(event)
        self.inbox.put_nowait(None)
        if events:
            logger.warning("deliveries dropped, the subscriber was stopped", count=len(events))
        return events

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled() and isinstance(error := reader.exception(), Exception):
            self.failure = error
            logger.error("listening failed", error=str(error))
            if not self._is_handing_out:
                self._interrupt_host()
        if self.inbox is not None:
            self.inbox.put_nowait(None)

    def _interrupt_host(self) -> None:
        if self.failure is not None and self.host is not None and self._interrupted is None:
            self._interrupted = self.host
            self.host.cancel("the subscriber failed")

    async def stop_interrupting(self, exc: BaseException | None) -> bool:
        """Take back the cancellation of the host. Return whether nothing else had cancelled it."""
        self.host = None
        host, self._interrupted = self._interrupted, None
        if host is None:
            return False
        if exc is None:
            # It was requested but not delivered yet: let it arrive here instead of at the next await.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return host.uncancel() == 0 and (exc is None or isinstance(exc, asyncio.CancelledError))

    async def end(self, *, discard: bool, within: float) -> None:
        """Stop reading, finish or drop what was read, wait for handlers, cancel the rest, close. Idempotent.

        From a handler it returns at once and leaves the ending to a task: the ending waits for the handlers.
        """
        deadline = asyncio.get_running_loop().time() + within
        self._intake.stop(discard=discard or self.inbox is not None)
        if self.dispatcher.is_running(asyncio.current_task()):
            if self._helper is None:
                self._helper = asyncio.create_task(self._end(deadline), name="jwt_events ending")
        else:
            await self._end(deadline)

    async def _end(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._ending:
                await asyncio.wait([self.reader], timeout=max(0.0, deadline - loop.time()))
                self.reader.cancel()
                await self.dispatcher.finish(max(0.0, deadline - loop.time()))
        except asyncio.CancelledError:
            self.reader.cancel()
            await self.dispatcher.finish(0.0)
            raise
        finally:
            await asyncio.wait([self.reader])
            await self._resources.aclose()
