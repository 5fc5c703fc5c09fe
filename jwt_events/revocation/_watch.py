"""Watches: tokens in use for longer than a request, whose users are told the moment they are revoked or expire.

When the list is closed nothing would be told any more, so its watches end, too.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self

from jwt_events._internal.callbacks import Callback, Callbacks
from jwt_events._internal.cancellation import HostCancellation
from jwt_events._internal.clock import Clock, Timer
from jwt_events._internal.loops import OwnLoop
from jwt_events.errors import Closed, ExpiredTokenError, NotLive, RevokedTokenError
from jwt_events.events import ClaimNames
from jwt_events.revocation._claims import RuleKind, Subjects, expiry_of
from jwt_events.revocation._deadlines import Deadlines
from jwt_events.revocation._narrowed import WITHOUT_IDENTIFIER
from jwt_events.revocation._rule import Rule
from jwt_events.revocation._rules import Match, Rules
from jwt_events.revocation._succession import check_successor

Reason = Literal["revoked", "expired", "closed"]
"""Why a watch ended."""

# Seconds for which the timer sleeps at the longest: event loops do not count to all numbers. The list looks once a
# second besides, for clocks that are set and machines that are suspended.
_MAX_SLEEP = 600.0
_MIN_SLEEP = 0.001


class Watch:
    """A watched token; an asynchronous context manager, returned by `RevocationList.watch`.

    Attributes:
        rule: the rule that revoked it; ``None`` while it is not revoked.
        reason: ``"revoked"``, ``"expired"`` or ``"closed"``, whichever came first; ``None`` while it is good.
    """

    def __init__(
        self,
        watches: WatchRegistry,
        claims: Mapping[str, object],
        *,
        on_revoked: Callback | None,
        cancel: bool,
        until_expiry: bool,
    ) -> None:
        self._revoked = asyncio.Event()
        self.rule: Match | None = None
        self.reason: Reason | None = None
        self.subjects: Subjects = watches.subjects_of(claims)
        self.deadline: float = watches.deadline_of(claims) if until_expiry else math.inf
        self._watches = watches
        self._on_revoked = on_revoked
        self._cancels = cancel
        self._until_expiry = until_expiry
        self._cancellation: HostCancellation | None = None
        self._was_entered = False  # last, as a watch that was refused is none

    def __repr__(self) -> str:
        return f"<Watch {self.reason or ('live' if self._was_entered else 'not entered')}>"

    def __del__(self) -> None:
        if not getattr(self, "_was_entered", True):  # there is none if the claims were refused
            problem = "a watch was never entered, so it watched nothing: use it inside `async with`"
            warnings.warn(problem, RuntimeWarning, stacklevel=2, source=self)

    @property
    def revoked(self) -> asyncio.Event:
        """Set as soon as the token is not good any more: it is known to be revoked, or it has expired.

        Also when the list is closed, as nothing would be told of the token any more.

        Raises:
            Closed: the block was not entered, so nothing would set it.
        """
        if not self._was_entered:
            raise Closed("the watch was not entered, so it watches nothing: use it inside `async with`")
        return self._revoked

    async def __aenter__(self) -> Self:
        self._was_entered = True
        self._watches.add(self)
        if self.reason is not None and self._cancels:
            self._watches.remove(self)
            raise self._error()
        if self._cancels:
            self._cancellation = HostCancellation()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watches.remove(self)
        if self._cancellation is None:
            return
        interrupted = await self._cancellation.absorb(exc)
        if interrupted and self.reason is not None:
            raise self._error() from exc

    def renew(self, claims: Mapping[str, object]) -> None:
        """Watch a new token of the same subject from now on, in place of the one in use.

        Its own identifiers, expiry and conditions count; the one before may be revoked or expire. The subject is the
        user (tokens without one: the session and client), the issuer and the client. If this raises, nothing has
        changed: the token before stays in use.

        There is no ``await`` between the check and the change, so no revocation comes in between.

        Args:
            claims: the verified payload of the new token.

        Raises:
            AnotherSubject: it is about another user, client or issuer.
            OlderToken: it was issued before the one in use, or expires earlier.
            RevokedTokenError: it is revoked; or the one in use was, which has ended this watch.
            ExpiredTokenError: the same for ``exp``.
            StaleRevocationsError: the list is stale, so the new token may have been revoked. Try it again.
            InvalidClaims: as `RevocationList.check` does.
            Closed: the block was left, or not entered yet; or the list was closed.
            WrongLoop: the list is open in another event loop.
        """
        self._watches.require(self)
        if self.reason is not None:
            raise self._error()
        subjects = self._watches.subjects_of(claims)
        deadline = self._watches.deadline_of(claims) if self._until_expiry else math.inf
        check_successor(self.subjects, subjects, self._watches.claim_names)
        self._watches.ensure_live(claims)
        if self._watches.has_passed(deadline):
            raise ExpiredTokenError(self._watches.expiry_at(deadline))
        self._watches.remove(self)
        self.subjects, self.deadline = subjects, deadline
        self._watches.add(self)

    def revoke(self, rule: Match, callbacks: Callbacks) -> None:
        """Note the revocation, and notify its user; does nothing after the end."""
        if self.reason is None:
            self.rule = rule
            self._end("revoked", callbacks)

    def expire(self, callbacks: Callbacks) -> None:
        """Note that the token has expired, and notify its user; does nothing after the end."""
        if self.reason is None:
            self._end("expired", callbacks)

    def close(self, callbacks: Callbacks) -> None:
        """Note that the list was closed, and notify its user; does nothing after the end."""
        if self.reason is None:
            self._end("closed", callbacks)

    def _end(self, reason: Reason, callbacks: Callbacks) -> None:
        self.reason = reason
        self._revoked.set()
        if self._on_revoked is not None:
            callbacks.call(self._on_revoked)
        if self._cancellation is not None:
            self._cancellation.cancel(f"the watch of the token ended: {reason}")

    def _error(self) -> NotLive | Closed:
        if self.reason == "closed":
            return Closed("the revocation list was closed, so nothing would tell that the token is no longer good")
        if self.rule is not None:
            return RevokedTokenError(self.rule.kind, self.rule.issued_before)
        return ExpiredTokenError(self._watches.expiry_at(self.deadline))


def _refuse(claims: Mapping[str, object]) -> None:
    raise Closed("the revocation list does not decide yet whether a token is live")


class WatchRegistry:
    """All watched tokens, indexed by the identifiers that a rule can name, and by when they expire.

    A new rule costs one dictionary look-up, however many tokens are watched, and more only for the tokens that have
    its identifier; a rule about other claims, or about everyone, one look at each token. One timer is for all of them.

    Args:
        rules: the rules in force.
        callbacks: calls the users of watches.
        loop: the event loop of the list.
        clock: its wall clock says what has expired, as it does where tokens are verified.

    Attributes:
        claim_names: the names of the claims that are looked at.
        ensure_live: raises if a token is not to be let in; the list sets it.
        is_open: whether the list is open; it sets it.
    """

    def __init__(self, rules: Rules, callbacks: Callbacks, loop: OwnLoop, clock: Clock) -> None:
        self._loop = loop
        self._rules = rules
        self._callbacks = callbacks
        self._clock = clock
        self._all: set[Watch] = set()
        self._by_subject: dict[tuple[RuleKind, int], set[Watch]] = {}
        self._deadlines: Deadlines[Watch] = Deadlines()
        self._timer: Timer | None = None
        self._timer_ends = math.inf
        self.claim_names: ClaimNames = rules.claim_names
        self.ensure_live: Callable[[Mapping[str, object]], None] = _refuse
        self.is_open: bool = False

    def __len__(self) -> int:
        return len(self._all)

    def subjects_of(self, claims: Mapping[str, object]) -> Subjects:
        """Read the claims of a token that rules look at.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or a claim has the wrong type.
        """
        return self._rules.subjects_of(claims)

    def deadline_of(self, claims: Mapping[str, object]) -> float:
        """Return until when a token may be in use, in seconds since 1970: its expiry, and the leeway.

        Raises:
            InvalidClaims: the claim is not a number.
        """
        return expiry_of(claims, self.claim_names) + self._rules.leeway

    def expiry_at(self, deadline: float) -> float:
        """Return when the token with this deadline expires, in seconds since 1970."""
        return deadline - self._rules.leeway

    def has_passed(self, deadline: float) -> bool:
        """Return whether a token with this deadline has expired."""
        return self._clock.wall() >= deadline

    def require(self, watch: Watch) -> None:
        """Raise if a token is not watched here and now; end the watch if its token has expired.

        Raises:
            Closed: it is not watched.
            WrongLoop: as `add`.
        """
        self._loop.check()
        if watch not in self._all:
            raise Closed("the token is not watched: renew it inside of the `async with` of its watch")
        if self.has_passed(watch.deadline):
            watch.expire(self._callbacks)

    def add(self, watch: Watch) -> None:
        """Watch a token from now on; one that is revoked or has expired already is reported at once, as is the end.

        Raises:
            WrongLoop: the list is open in another event loop, which cannot wake this one.
        """
        self._loop.check()
        self._all.add(watch)
        for subject in watch.subjects.digests:
            self._by_subject.setdefault(subject, set()).add(watch)
        self._check(watch)
        if not self.is_open:  # the list was closed since it returned the watch
            watch.close(self._callbacks)
        elif self.has_passed(watch.deadline):
            watch.expire(self._callbacks)
        elif watch.deadline < math.inf:
            self._deadlines.add(watch, watch.deadline)
            self._set_timer()

    def remove(self, watch: Watch) -> None:
        """Stop watching a token; idempotent."""
        self._all.discard(watch)
        self._deadlines.discard(watch, watch.deadline)
        for subject in watch.subjects.digests:
            if (watches := self._by_subject.get(subject)) is not None:
                watches.discard(watch)
                if not watches:
                    del self._by_subject[subject]

    def notify(self, rule: Rule) -> None:
        """Revoke the watches that a rule covers which is now in force."""
        if not self._all:
            return
        any_token = rule.kind in WITHOUT_IDENTIFIER
        affected = self._all if any_token else self._by_subject.get((rule.kind, rule.digest), ())
        for watch in tuple(affected):
            self._check(watch)

    def check_all(self) -> None:
        """Revoke the watches that any rule covers: after many rules were put in force at once."""
        for watch in tuple(self._all):
            self._check(watch)

    def expire(self) -> None:
        """End the watches whose tokens have expired by the wall clock as it is now."""
        for watch in self._deadlines.pop_due(self._clock.wall()):
            if watch in self._all:
                watch.expire(self._callbacks)
        self._set_timer()

    def close(self) -> None:
        """End all watches, as the list is closed, and stop the timer; idempotent."""
        self.is_open = False
        self._stop()
        for watch in tuple(self._all):
            watch.close(self._callbacks)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_ends = None, math.inf

    def _check(self, watch: Watch) -> None:
        if (rule := self._rules.match(watch.subjects)) is not None:
            watch.revoke(rule, self._callbacks)

    def _set_timer(self) -> None:
        """Wake up when the next token expires, or earlier."""
        earliest = self._deadlines.earliest()
        if earliest == math.inf:
            return
        sleep = min(max(earliest - self._clock.wall(), _MIN_SLEEP), _MAX_SLEEP)
        ends = self._clock.monotonic() + sleep
        if ends < self._timer_ends:
            self._stop()
            self._timer, self._timer_ends = self._clock.call_later(sleep, self._wake), ends

    def _wake(self) -> None:
        self._timer, self._timer_ends = None, math.inf
        self.expire()
