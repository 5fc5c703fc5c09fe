"""Watches: tokens in use for longer than a request, whose users are told the moment they are revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from jwt_events._internal.callbacks import Callback, Callbacks
from jwt_events._internal.cancellation import HostCancellation
from jwt_events._internal.loops import OwnLoop
from jwt_events.errors import RevokedTokenError
from jwt_events.revocation._claims import RuleKind, Subjects
from jwt_events.revocation._narrowed import WITHOUT_IDENTIFIER
from jwt_events.revocation._rule import Rule
from jwt_events.revocation._rules import Match, Rules


class Watch:
    """A watched token; an asynchronous context manager, returned by `RevocationList.watch`.

    Attributes:
        revoked: set as soon as the token is known to be revoked.
        rule: the rule that revoked it; ``None`` while it is not revoked.
    """

    def __init__(
        self, watches: WatchRegistry, claims: Mapping[str, object], *, on_revoked: Callback | None, cancel: bool
    ) -> None:
        self.revoked: asyncio.Event = asyncio.Event()
        self.rule: Match | None = None
        self.subjects: Subjects = watches.subjects_of(claims)
        self._watches = watches
        self._on_revoked = on_revoked
        self._cancels = cancel
        self._cancellation: HostCancellation | None = None

    def __repr__(self) -> str:
        return f"<Watch {'live' if self.rule is None else 'revoked'}>"

    async def __aenter__(self) -> Self:
        self._watches.add(self)
        if self.rule is not None and self._cancels:
            self._watches.remove(self)
            raise self._error(self.rule)
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
        if interrupted and self.rule is not None:
            raise self._error(self.rule) from exc

    def revoke(self, rule: Match, callbacks: Callbacks) -> None:
        """Note the revocation, and notify its user; further calls do nothing."""
        if self.rule is not None:
            return
        self.rule = rule
        self.revoked.set()
        if self._on_revoked is not None:
            callbacks.call(self._on_revoked)
        if self._cancellation is not None:
            self._cancellation.cancel("the token was revoked")

    @staticmethod
    def _error(rule: Match) -> RevokedTokenError:
        return RevokedTokenError(rule.kind, rule.issued_before)


class WatchRegistry:
    """All watched tokens, indexed by the identifiers that a rule can name.

    A new rule costs one dictionary look-up, however many tokens are watched, and more only for the tokens that have
    its identifier; a rule about other claims, or about everyone, one look at each token.
    """

    def __init__(self, rules: Rules, callbacks: Callbacks, loop: OwnLoop) -> None:
        self._loop = loop
        self._rules = rules
        self._callbacks = callbacks
        self._all: set[Watch] = set()
        self._by_subject: dict[tuple[RuleKind, int], set[Watch]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def subjects_of(self, claims: Mapping[str, object]) -> Subjects:
        """Read the claims of a token that rules look at.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or a claim has the wrong type.
        """
        return self._rules.subjects_of(claims)

    def add(self, watch: Watch) -> None:
        """Watch a token from now on; one that is revoked already is reported at once.

        Raises:
            WrongLoop: the list is open in another event loop, which cannot wake this one.
        """
        self._loop.check()
        self._all.add(watch)
        for subject in watch.subjects.digests:
            self._by_subject.setdefault(subject, set()).add(watch)
        self._check(watch)

    def remove(self, watch: Watch) -> None:
        """Stop watching a token; idempotent."""
        self._all.discard(watch)
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

    def _check(self, watch: Watch) -> None:
        if (rule := self._rules.match(watch.subjects)) is not None:
            watch.revoke(rule, self._callbacks)
