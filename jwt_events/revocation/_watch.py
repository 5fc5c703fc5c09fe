"""Watch them: tokens in use for longer than a request, and what happens the moment one of them is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from jwt_events._internal.callbacks import Callback, Callbacks
from jwt_events._internal.cancellation import HostCancellation
from jwt_events.errors import RevokedTokenError
from jwt_events.revocation._claims import RuleKind, Subjects, subjects_of
from jwt_events.revocation._rules import Match, Rule, Rules


class Watch:
    """A token that is being watched; an asynchronous context manager, made by `RevocationList.watch`.

    Attributes:
        revoked: set as soon as the token is known to be revoked.
        rule: the rule that revoked it, or ``None`` so far.
    """

    def __init__(
        self, watches: Watches, claims: Mapping[str, object], *, on_revoked: Callback | None, cancel: bool
    ) -> None:
        self.revoked: asyncio.Event = asyncio.Event()
        self.rule: Match | None = None
        self.subjects: Subjects = subjects_of(claims)
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
        """Tell that the token is revoked; once."""
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


class Watches:
    """All tokens that are being watched, filed under what a rule could be about.

    A new rule costs one look into a dictionary, however many tokens are watched, and more only for those that it is
    about.
    """

    def __init__(self, rules: Rules, callbacks: Callbacks) -> None:
        self._rules = rules
        self._callbacks = callbacks
        self._filed: dict[tuple[RuleKind, int], set[Watch]] = {}

    def __len__(self) -> int:
        return len(set().union(*self._filed.values()))

    def add(self, watch: Watch) -> None:
        """Watch a token from now on; if it is revoked already, say so at once."""
        for place in watch.subjects.digests:
            self._filed.setdefault(place, set()).add(watch)
        self._ask(watch)

    def remove(self, watch: Watch) -> None:
        """Watch it no longer; idempotent."""
        for place in watch.subjects.digests:
            if (filed := self._filed.get(place)) is not None:
                filed.discard(watch)
                if not filed:
                    del self._filed[place]

    def compare(self, rule: Rule) -> None:
        """Tell those whom a rule that is now in force revokes."""
        if self._filed and (concerned := self._filed.get((rule.kind, rule.digest))):
            for watch in tuple(concerned):
                self._ask(watch)

    def _ask(self, watch: Watch) -> None:
        if (rule := self._rules.match(watch.subjects)) is not None:
            watch.revoke(rule, self._callbacks)
