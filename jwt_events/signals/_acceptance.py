"""The tokens of one poll: verified, turned into events, published, and answered.

A token is acknowledged only when the server has its events. One that cannot be judged at the moment, because keys, a
function of the program or the server are not available, gets no answer, so that the transmitter keeps it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from loguru import logger

from jwt_events._internal.describing import describe
from jwt_events._internal.functions import awaited, function
from jwt_events.errors import Closed, InvalidEvent, PublishError, SignalRefused, TransportError, Unavailable
from jwt_events.events import Event
from jwt_events.instrumentation import SignalObserver, SignalOutcome
from jwt_events.publisher import Publisher
from jwt_events.signals._liveness import Liveness
from jwt_events.signals._polling import Answers
from jwt_events.signals._security import Received, SecurityEvents
from jwt_events.signals._token import refused

_UNVERIFIED = "unverified"


class Acceptance:
    """Accepts the tokens of polls.

    Args:
        publisher: publishes the events.
        events: verifies the tokens.
        liveness: is told of verification and stream-updated events.
        on_status: is called with the new status of the stream.
        observer: counts what becomes of the tokens.
    """

    def __init__(
        self,
        publisher: Publisher,
        events: SecurityEvents,
        liveness: Liveness,
        on_status: Callable[[str], object] | None,
        observer: SignalObserver,
    ) -> None:
        self._publisher = publisher
        self._events = events
        self._liveness = liveness
        self._on_status: Callable[[str], Awaitable[object] | object] | None = (
            None if on_status is None else function("on_status", on_status)
        )
        self._observer = observer

    async def accept(self, sets: Mapping[str, Any], answers: Answers) -> Exception | None:
        """Verify tokens, publish what they say, and add the answers as they are known.

        Cancelling is safe: what was not answered is sent again.

        Args:
            sets: the tokens by the ``jti`` that the transmitter names.
            answers: get an answer for each token that has one.

        Returns:
            Why a token has no answer; ``None`` if all have one.
        """
        failure: Exception | None = None
        verified: list[tuple[str, Received]] = []
        for jti, token in sets.items():
            await asyncio.sleep(0)  # verifying takes time, and may not wait for anything
            try:
                verified.append((jti, await self._verify(jti, token)))
            except SignalRefused as error:
                self._refuse(answers, jti, error)
            except Exception as error:  # noqa: BLE001 - of the keys, or of a function of the application
                failure = error
                self._fail(error)
        return await self._publish_all(verified, answers) or failure

    async def _verify(self, jti: str, token: Any) -> Received:
        received = await self._events.receive(token)
        if received.signals[0].jti != jti:
            raise refused("the jti is not the one that the token was sent under")
        if received.verification and received.state is not None and not self._liveness.verified(received.state):
            raise SignalRefused("invalid_state", "the state of the verification event was not expected")
        if received.status is not None:
            await self.note_status(received.status)
        return received

    async def note_status(self, status: str) -> None:
        """Take note of the status of the stream, and tell the program if it is a new one."""
        if status != self._liveness.status:
            logger.warning("stream of signals updated", state=status)
            if self._on_status is not None:
                await awaited("on_status", self._on_status(status))
            self._liveness.status = status

    async def _publish_all(self, verified: Sequence[tuple[str, Received]], answers: Answers) -> Exception | None:
        """Publish the events of all tokens in one go; one by one if an event cannot be published at all."""
        try:
            return await self._publish(verified, answers)
        except InvalidEvent:
            failure: Exception | None = None
            for jti, received in verified:
                try:
                    failure = await self._publish([(jti, received)], answers) or failure
                except InvalidEvent:
                    self._refuse(answers, jti, refused("the event that it stands for cannot be published"))
            return failure

    async def _publish(self, verified: Sequence[tuple[str, Received]], answers: Answers) -> Exception | None:
        events = [event for _, received in verified for event in received.events]
        failure: Exception | None = None
        missing: set[str] = set()
        if events:
            try:
                await self._publisher.publish_many(events)
            except PublishError as error:
                failure, missing = error, {*error.event_ids}
            except (Closed, TransportError, Unavailable) as error:
                failure, missing = error, {event.id for event in events}
        for jti, received in verified:
            if missing.isdisjoint(event.id for event in received.events):
                answers.add(Answers(accepted={jti}))
                self._count(received.kind, received.events)
        if failure is not None:
            self._fail(failure)
        return failure

    def _count(self, kind: str, events: Sequence[Event]) -> None:
        self._observer.received(kind, SignalOutcome.PUBLISHED if events else SignalOutcome.IGNORED)
        now = time.time()
        for event in events:
            self._observer.in_force(now - event.occurred_at.timestamp())

    def _refuse(self, answers: Answers, jti: str, error: SignalRefused) -> None:
        answers.add(Answers(refused={jti: error}))
        self._observer.received(_UNVERIFIED, SignalOutcome.REFUSED)
        logger.info("signal refused", reason=error.err, problem=error.description)

    def _fail(self, error: Exception) -> None:
        self._observer.received(_UNVERIFIED, SignalOutcome.FAILED)
        logger.warning("signal not published", error=describe(error))
