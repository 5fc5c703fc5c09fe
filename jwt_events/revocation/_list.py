"""`RevocationList`: a local replica that answers whether a token is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, Self

from jwt_events._internal import options
from jwt_events._internal.callbacks import Callback
from jwt_events._internal.clock import SYSTEM, Clock, valid
from jwt_events._internal.functions import function
from jwt_events.errors import Closed, InvalidOption, NotProven, RevokedTokenError, StaleRevocationsError
from jwt_events.events import ClaimNames, Event, claim_names_of
from jwt_events.instrumentation import Instrumentation, instrumentation
from jwt_events.revocation._feed import Opening
from jwt_events.revocation._following import Following
from jwt_events.revocation._health import Health
from jwt_events.revocation._registration import Registration
from jwt_events.revocation._rules import Match
from jwt_events.revocation._sources import Sources
from jwt_events.revocation._verdict import Explanation, RevocationStats, Verdict
from jwt_events.revocation._view import RevocationView, ViewState
from jwt_events.revocation._watch import Watch
from jwt_events.transport.base import Transport
from jwt_events.transport.regions import RegionalStreams

_MIN_STALENESS = 0.1

_ALLOW, _REVOKED, _STALE = Verdict  # faster to look up than attributes of the class


class RevocationList(Registration, Health):
    """A local replica of all revocations. A check is a few set look-ups without I/O, and the list knows its own age.

    An asynchronous context manager. Entered means that the transport's history was read to its end; from then on the
    list follows new events, across lost connections and restarts of the server. Keep it open as long as the service
    runs::

        async with RevocationList(RedisStream("redis://localhost")) as revocations:
            revocations.ensure_live(claims)

    A token that is known to be revoked stays revoked, whatever happens. When the list cannot prove that it is current,
    because the server is gone, the network is half open, the event loop was blocked or following failed, it returns
    `Verdict.STALE` instead of `Verdict.ALLOW`. The program goes on: the list tries to become current again for as long
    as it is open.

    A rule covers the tokens whose claims are as the event names them, and whose ``iat`` is not after its cutoff.

    Args:
        transport: the source of revocations; durable, and without a group. It is read from its oldest event on,
            whatever its ``start``, and so is its ledger. Without a ledger, its ``retention`` must be at least the
            longest lifetime of a token. `RegionalStreams` are followed together.
        max_staleness: seconds for which a proof of being current is good. A shorter time means less delay between a
            revocation that cannot be delivered and the refusal of all tokens, and `Verdict.STALE` at shorter
            interruptions of the server. At least 0.1. If in doubt, leave it.
        on_stale: ``"deny"`` returns `Verdict.STALE` when the list is stale. ``"allow"`` decides by the rules that are
            known, and opens without a server: availability before security. It is counted in
            `RevocationStats.stale_allows`. A list that is not open returns `Verdict.STALE` all the same.
        leeway: seconds by which the clocks of issuers may be ahead: tokens issued so long after a cutoff are covered,
            and those in use are good so long after their ``exp``.
        claim_names: the names of the claims that rules look at, if they are not the standard ones.
        wait: whether entering waits until the history was read, and fails if it cannot be. ``False`` opens at once, in
            any case: not ready, stale, and catching up in the background for as long as it takes.
        metrics: a `jwt_events.metrics.Metrics`, to count for Prometheus; ``None`` counts nothing.
        service: the service that this list belongs to. With ``instance`` it announces itself, so that publishers can
            wait for it (`Fleet`), and ``jwt-events fleet`` shows it: needs the right ``+hset`` on ``<key>:fleet``.
        instance: the name of this instance of the service.
        clock: decides what is stale and which rules have expired: a `jwt_events.testing.ManualClock`, for tests.

    Raises:
        InvalidOption: an option cannot work.
        TransportError: on entering: the history could not be read.
        Closed: on entering: it is open already.
    """

    def __init__(
        self,
        transport: Transport | RegionalStreams,
        *,
        max_staleness: float = 5.0,
        on_stale: Literal["deny", "allow"] = "deny",
        leeway: float = 0.0,
        wait: bool = True,
        claim_names: ClaimNames | None = None,
        metrics: Instrumentation | None = None,
        service: str | None = None,
        instance: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._transport, self._sources = transport, Sources.of(transport)
        self._max_staleness = _seconds_of_staleness(max_staleness)
        if on_stale not in ("deny", "allow"):
            raise InvalidOption("on_stale", "must be 'deny' or 'allow'")
        self._allows_stale = on_stale == "allow"
        self._announcers = self._sources.announcers(
            service, instance, max_staleness=self._max_staleness, allows_stale=self._allows_stale
        )
        self._opening = Opening.of(wait=options.flag("wait", wait), allows_stale=self._allows_stale)
        self._view = RevocationView(
            retention=self._sources.retention,
            leeway=options.leeway("leeway", leeway),
            max_staleness=self._max_staleness,
            clock=valid(clock),
            claim_names=claim_names_of(claim_names),
            regions=self._sources.transports,
        )
        self._now = clock.monotonic
        self._rules = self._view.rules
        self._view.watches.ensure_live = self.ensure_live
        self.claim_names: ClaimNames = self._rules.claim_names
        self._metrics = instrumentation(metrics)
        self._following: Following | None = None
        self._allowed = self._revoked = self._stale = self._stale_allows = 0

    def __repr__(self) -> str:
        rules = sum(self._rules.counts.values())
        why = f", {failure.reason}" if isinstance(failure := self.failure, NotProven) else ""
        why += f", without {', '.join(self.cut_off)}" if self.cut_off else ""
        return f"<RevocationList {self.state}{why}, {rules} rules, {self.staleness:.1f} s old, {self._transport!r}>"

    @property
    def stats(self) -> RevocationStats:
        """Counts of rules, events and verdicts so far."""
        view = self._view
        verdicts = self._allowed, self._revoked, self._stale, self._stale_allows
        return RevocationStats(self._rules.counts, view.events, view.gaps, view.decode_errors, *verdicts)

    def check(self, claims: Mapping[str, object], at_least: str | None = None) -> Verdict:
        """Return whether to let a token in. Takes about a microsecond, does no I/O, may be called from any thread.

        Args:
            claims: the verified payload of the token; those in `claim_names` and those that rules name are looked at. A
                missing claim matches no rule, but a token without ``iat`` is covered by every cutoff. To have the
                signing key checked, add the ``kid`` of the header: ``{**claims, "kid": header["kid"]}``.
            at_least: a position, as in `Receipt.position`: stale until all events up to there are in force here. So a
                client that was just logged out is refused by each instance, also by one that has not heard of it yet.
                A list of `RegionalStreams` needs the region before it: ``f"eu:{position}"``.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or one of these has the wrong type. Do not let the token in.
            InvalidOption: ``at_least`` is no position.
        """
        # Read first: while a thread looks at the rules, the event loop may add some, and prove that none is missing.
        has_applied = at_least is None or self._view.progress.has_applied(at_least)
        fresh_until = self._view.fresh_until
        if self._rules.revokes(claims):
            self._revoked += 1
            return _REVOKED
        if has_applied:
            now = self._now  # called as a method, it would be looked up in the class first
            if now() <= fresh_until:
                self._allowed += 1
                return _ALLOW
            if self._allows_stale and self._is_open:
                self._allowed += 1
                self._stale_allows += 1
                return _ALLOW
            if self._following is None:
                self._view.report_closed(self._transport.destination)
        self._stale += 1
        return _STALE

    def ensure_live(self, claims: Mapping[str, object], at_least: str | None = None) -> None:
        """Return if a token is to be let in, else raise; counted as `check` is.

        Raises:
            RevokedTokenError: the token is revoked. An HTTP service responds with 401.
            StaleRevocationsError: the list is stale. An HTTP service responds with 503.
            InvalidClaims: as `check` does. An HTTP service responds with 401.
        """
        verdict = self.check(claims, at_least)
        if verdict is _REVOKED:  # in another thread, the rule may have been removed since
            raise RevokedTokenError(*(self._rules.match(self._rules.subjects_of(claims)) or Match("token", None)))
        if verdict is _STALE:
            waits_for = at_least if at_least is not None and not self._view.progress.has_applied(at_least) else None
            raise StaleRevocationsError(self.staleness, self._max_staleness, waits_for) from self.failure

    def explain(self, claims: Mapping[str, object]) -> Explanation:
        """Return what `check` would return, and why; not counted.

        Raises:
            InvalidClaims: as `check` does.
        """
        is_good = self.is_fresh or (self._allows_stale and self._is_open)  # first, as in `check`
        rule = self._rules.match(self._rules.subjects_of(claims))
        return Explanation(_REVOKED if rule else _ALLOW if is_good else _STALE, rule, self.staleness)

    def watch(
        self,
        claims: Mapping[str, object],
        on_revoked: Callback | None = None,
        *,
        cancel: bool = False,
        until_expiry: bool = True,
    ) -> Watch:
        """Watch a token that is in use for longer than a request: by a WebSocket, a stream of events, a long task.

        An asynchronous context manager; ``watch.revoked`` is an `asyncio.Event` that is set the moment the token is
        revoked or expires, at once if it did already. Each watch is about one token: another session does not set it.
        It is also set when the list is closed, as nothing would be told any more; ``watch.reason`` says which it was.
        `Watch.renew` takes a new token of the same subject::

            async with revocations.watch(claims, cancel=True):
                await serve(websocket)

        Args:
            claims: as in `check`.
            on_revoked: called without arguments, once: a plain function on the event loop, which must not block, or a
                coroutine function.
            cancel: cancel the block then, and raise `RevokedTokenError` or `ExpiredTokenError` where the block ends;
                `Closed` if the list was closed.
            until_expiry: whether the token is good until its ``exp``, and no longer, by the wall clock; ``leeway`` is
                added. ``False`` looks at revocations alone, and so does a token without ``exp``.

        Raises:
            InvalidClaims: as `check` does, or ``exp`` is not a number.
            Closed: the list is not open, so no revocation would be received.
        """
        if self._following is None:
            raise Closed("the revocation list is not open: use it inside `async with`")
        if on_revoked is not None:
            function("on_revoked", on_revoked, arguments=0)
        return Watch(
            self._view.watches,
            claims,
            on_revoked=on_revoked,
            cancel=cancel,
            until_expiry=options.flag("until_expiry", until_expiry),
        )

    def apply(self, event: Event) -> None:
        """Apply an event to this list alone, as if it had come over the bus: to fill a gap from another source."""
        self._view.loop.check_thread()
        self._view.apply_event(event)

    async def __aenter__(self) -> Self:
        self._view.loop.bind()
        if self._following is not None:
            raise Closed("the revocation list is open already")
        self._following = following = Following(
            self._sources,
            self._view,
            max_staleness=self._max_staleness,
            opening=self._opening,
            announcers=self._announcers,
        )
        following.start(self, self._verdicts)
        if self._metrics is not None:
            name, destination = self._transport.name, self._transport.destination
            self._view.observer = self._metrics.view(name, destination, staleness=lambda: self._view.staleness)
        self._view.progress.open()
        self._view.watches.is_open = True
        self._view.enter_state(ViewState.CATCHING_UP)
        try:
            await asyncio.shield(following.feed.opened)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following: known revocations stay in force, every other token is stale, watches end. Idempotent."""
        self._view.loop.check()
        following = self._following
        try:
            if following is not None:
                await following.stop()
        finally:
            self._following = None
            self._view.count(self._verdicts())
            try:
                await self._view.aclose()  # ends watches, perhaps one of the task that closes the list
            finally:
                if following is not None:
                    await following.leave()

    def _verdicts(self) -> Mapping[str, int]:
        return {_ALLOW: self._allowed, _REVOKED: self._revoked, _STALE: self._stale}


def _seconds_of_staleness(value: float) -> float:
    seconds = options.seconds("max_staleness", value)
    if seconds < _MIN_STALENESS:
        raise InvalidOption("max_staleness", f"must be at least {_MIN_STALENESS} s: a proof takes a round trip")
    return seconds
