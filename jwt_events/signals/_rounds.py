"""The rounds of a poller: a poll, the tokens that it brings, the answers to them, and the pause until the next one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.describing import describe
from jwt_events._internal.retry import backoff
from jwt_events.errors import InvalidOption, JWTEventsError, TransmitterRefused
from jwt_events.instrumentation import Polled, PollObserver
from jwt_events.signals._acceptance import Acceptance
from jwt_events.signals._http import HttpClient, address
from jwt_events.signals._liveness import Liveness
from jwt_events.signals._polling import Answers, PollReply, max_reply_bytes, read_reply, request_body

_FIRST_PAUSE, _MAX_PAUSE = 1.0, 60.0
_MIN_ROUND = 1.0  # seconds for a long poll without tokens, as some transmitters reply to it at once
_LAST_ANSWERS_WITHIN = 5.0
_MAX_EVENTS = 1_000


@dataclass(frozen=True, slots=True)
class PollOptions:
    """How to poll, checked.

    Attributes:
        url: the address.
        interval: seconds between two polls; ``None`` for long polls.
        max_events: how many tokens a reply may have.
        timeout: seconds that a reply may take.
    """

    url: str
    interval: float | None
    max_events: int
    timeout: float

    def __post_init__(self) -> None:
        address("url", self.url)
        options.optional_seconds("interval", self.interval)
        options.count("max_events", self.max_events, maximum=_MAX_EVENTS)
        options.seconds("timeout", self.timeout)

    def check_staleness(self, max_staleness: float, verify_every: float | None) -> float:
        """Accept a limit of staleness that what happens regularly keeps.

        Raises:
            InvalidOption: it would pass between two proofs.
        """
        options.seconds("max_staleness", max_staleness)
        if max(self.timeout, self.interval or 0.0, verify_every or 0.0) >= max_staleness:
            raise InvalidOption("max_staleness", "must be more than timeout, interval and verify_every")
        return max_staleness


class Rounds:
    """Polls, round after round, and keeps the answers until the transmitter has them.

    Args:
        http: sends the requests.
        how: how to poll.
        acceptance: accepts the tokens.
        liveness: is told of polls that were answered.

    Attributes:
        observer: counts the polls.
        failure: why the last round failed; ``None`` if it did not.
    """

    def __init__(self, http: HttpClient, how: PollOptions, acceptance: Acceptance, liveness: Liveness) -> None:
        self._http = http
        self._how = how
        self._acceptance = acceptance
        self._liveness = liveness
        self._answers = Answers()
        self._failures = 0
        self._is_answered = False  # whether the last poll was answered
        self.observer = PollObserver()
        self.failure: Exception | None = None

    def forget(self) -> None:
        """Drop the answers: another process answers from now on."""
        self._answers = Answers()
        self.begin()

    def begin(self) -> None:
        """Ask for a reply at once in the next round: whether the stream is alive should be known soon."""
        self._is_answered = False

    async def once(self) -> float:
        """Do one round, and return the seconds until the next one is due."""
        sent, began = self._answers.copy(), monotonic()
        try:
            reply = await self._poll(sent, self._how.max_events, self._how.timeout)
        except Exception as error:  # noqa: BLE001 - of the transmitter, or of the function that authorizes
            self.observer.polled(Polled.REFUSED if isinstance(error, TransmitterRefused) else Polled.FAILED)
            return self._failed(error)
        self.observer.polled(Polled.ANSWERED)
        self._is_answered = True
        self._answers.remove(sent)
        self._liveness.polled(began)
        failure = await self._acceptance.accept(reply.sets, self._answers) if reply.sets else None
        if failure is not None:
            return self._failed(failure)
        if reply.sets and sent.answers(reply.sets):  # it ignores the answers: asking at once would never end
            self._failures += 1
            return self._pause()
        self._failures, self.failure = 0, None
        if self._answers or reply.more:
            return 0.0
        if self._how.interval is None:
            return max(0.0, began + _MIN_ROUND - monotonic())
        return self._how.interval

    async def send_last(self) -> None:
        """Send the answers that are left, and ask for nothing. Failures are logged."""
        if not self._answers:
            return
        try:
            await self._poll(self._answers, 0, min(_LAST_ANSWERS_WITHIN, self._how.timeout))
        except Exception as error:  # noqa: BLE001 - as in a round; the transmitter sends these tokens again
            self._tell(error)
        else:
            self.forget()

    async def _poll(self, answers: Answers, max_events: int, within: float) -> PollReply:
        at_once = max_events == 0 or self._how.interval is not None or not self._is_answered
        _, body = await self._http.request(
            "POST",
            self._how.url,
            within=within,
            max_bytes=max_reply_bytes(max_events),
            body=request_body(answers, max_events=max_events, at_once=at_once),
        )
        return read_reply(body)

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self.failure = error
        self.begin()
        self._tell(error)
        return max(self._pause(), getattr(error, "retry_after", None) or 0.0)

    def _pause(self, chance: Callable[[], float] = random.random) -> float:
        return backoff(self._failures, initial=_FIRST_PAUSE, maximum=_MAX_PAUSE, chance=chance)

    def _tell(self, error: Exception) -> None:
        problem = str(error) if isinstance(error, JWTEventsError) else describe(error)
        logger.warning("poll failed", error=problem, failures=self._failures)
