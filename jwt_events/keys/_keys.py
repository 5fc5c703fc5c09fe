"""`SigningKeys`: a cache of an issuer's signing keys, updated by rotations, and usable while the issuer is down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.functions import function
from jwt_events.errors import (
    CompromisedKey,
    InvalidOption,
    KeysUnavailable,
    RetiredKey,
    SigningKeyError,
    UnknownKey,
)
from jwt_events.events import KeyRotated, fingerprint
from jwt_events.instrumentation import Instrumentation, KeysObserver, LookedUp, instrumentation
from jwt_events.keys import _jwks as jwks
from jwt_events.keys._fetcher import Fetch, Fetcher, FetchFunction, current_time
from jwt_events.keys._keyring import Keyring, NegativeCache
from jwt_events.keys._schedule import FetchPlan, FetchRequest, Now, Reason

if TYPE_CHECKING:
    from jwt import PyJWK

_OUTCOMES: dict[type[SigningKeyError], LookedUp] = {
    UnknownKey: LookedUp.UNKNOWN,
    RetiredKey: LookedUp.RETIRED,
    CompromisedKey: LookedUp.COMPROMISED,
    KeysUnavailable: LookedUp.UNAVAILABLE,
}


class KeyEventSource(Protocol):
    """A source of `KeyRotated` events: a `Subscriber`, or a `RevocationList`."""

    def on(self, kind: type[KeyRotated], /) -> Callable[[Callable[[KeyRotated], Any]], object]:
        """Register the decorated function for events of this kind."""


@dataclass(frozen=True, slots=True)
class SigningKeysStats:
    """Counts of a `SigningKeys` so far.

    Attributes:
        keys: keys that are known now.
        age: seconds since the last successful fetch; infinite if there was none.
        fetches: fetches that were started.
        failures: fetches that failed.
        refused: calls of `SigningKeys.get` that ended with a `SigningKeyError`.
    """

    keys: int
    age: float
    fetches: int
    failures: int
    refused: int


class SigningKeys:
    """A cache of the public keys of an issuer, fetched when needed and kept up to date by `KeyRotated` events.

    ::

        async def fetch():
            async with session.get("https://issuer.example/.well-known/jwks.json") as response:
                response.raise_for_status()
                return await response.json()

        keys = SigningKeys(fetch)
        keys.attach(subscriber)

        async with keys:
            key = await keys.get(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(token, key, audience="orders")

    Inside ``async with`` it keeps itself up to date: entering fetches the keys, an announced key is fetched before a
    caller needs it, and the keys are refreshed after half of ``max_age``. Outside of it, before and after, `get` works
    as well; fetches then start only in its calls. All calls belong to one event loop, and to its thread.

    Fetches are shared: at most one runs at a time, however many callers need it. They start for three reasons (a caller
    needs an unknown key; a key was announced; the keys have reached half of ``max_age``), at most one for each in
    ``cooldown`` seconds, even if all of them fail. A caller's fetch that finds its key does not count.

    A failing fetch leaves the known keys unchanged, until they are ``max_age`` old. A key is accepted as soon as it is
    listed, even before its ``active_from``, so that tokens of a clock that is ahead are not refused. It is refused 5
    seconds after its ``retire_at``, and at once and for ever when it is compromised, whatever is listed. An issuer must
    therefore never give a compromised ``kid`` to another key.

    Args:
        fetch: takes no arguments and returns the JWK Set (RFC 7517), decoded: a coroutine function, or a plain
            function, which runs in a thread of its own and may block.
        cooldown: seconds between two fetches for the same reason.
        negative_ttl: seconds for which a key that a fetch did not list is refused without another fetch; a `KeyRotated`
            ends it.
        max_age: seconds since the last successful fetch after which the keys are no longer valid.
        timeout: seconds that a fetch may take.
        wait: whether entering waits for the keys, and fails if they cannot be fetched. ``False`` opens at once, and
            fetches them in the background.
        issuer: the issuer of these keys. Events that name another issuer are ignored; ``None`` accepts all.
        metrics: a `Metrics`, whose series carry the issuer as a label; ``None`` records nothing.

    Raises:
        InvalidOption: an option cannot work.
        ImportError: the extra ``keys`` is not installed.
    """

    def __init__(
        self,
        fetch: FetchFunction,
        *,
        cooldown: float = 10.0,
        negative_ttl: float = 30.0,
        max_age: float = 3600.0,
        timeout: float = 5.0,
        wait: bool = True,
        issuer: str | None = None,
        metrics: Instrumentation | None = None,
    ) -> None:
        function("fetch", fetch)
        jwks.require_pyjwt()
        self._issuer = None if issuer is None else options.name("issuer", issuer)
        self._negative_ttl = options.seconds("negative_ttl", negative_ttl)
        self._keyring = Keyring()
        self._negative_cache = NegativeCache(self._negative_ttl)
        self._plan = FetchPlan(
            cooldown=options.seconds("cooldown", cooldown), max_age=options.seconds("max_age", max_age)
        )
        seconds = options.seconds("timeout", timeout)
        instruments = instrumentation(metrics)
        self._observer = KeysObserver() if instruments is None else instruments.keys(self._issuer or "")
        self._fetcher = Fetcher(
            fetch, timeout=seconds, plan=self._plan, deliver=self._replace_keys, observer=self._observer
        )
        self._skipped: frozenset[jwks.Skipped] = frozenset()
        self._refused = 0
        self._waits = options.flag("wait", wait)

    def __repr__(self) -> str:
        age = self._plan.age(current_time())
        state = "never fetched" if math.isinf(age) else f"{age:.0f} s old"
        failing = "" if self._plan.failure is None else ", failing"
        return f"<SigningKeys {len(self._keyring)} keys, {state}{failing}>"

    @property
    def stats(self) -> SigningKeysStats:
        """Counts so far."""
        age = self._plan.age(current_time())
        return SigningKeysStats(len(self._keyring), age, self._fetcher.fetches, self._fetcher.failures, self._refused)

    async def get(self, kid: str | None) -> PyJWK:
        """Return the key to verify a token with. Pass it to ``jwt.decode``, which then accepts its algorithm only.

        A known key is returned without waiting. For an unknown one the keys are fetched, unless that was tried within
        ``cooldown`` or did not find it within ``negative_ttl``: then it is refused at once, and the error says when to
        retry.

        Cancelling is safe, and does not affect other callers that wait for the same fetch.

        Args:
            kid: the ``kid`` of the token's header, unchecked: a value that cannot be a key's name is refused. ``None``
                if the token has none; that is accepted only while exactly one key is valid. A key that is listed
                without a ``kid`` cannot be retired by an event, as no event can name it.

        Raises:
            UnknownKey: the issuer did not list it, or a fetch may not start yet.
            RetiredKey: a rotation retired it.
            CompromisedKey: it leaked.
            KeysUnavailable: the keys cannot be fetched; the reason is the ``__cause__``.
            Closed: `aclose` was called meanwhile.
        """
        try:
            key = await self._get(kid)
        except SigningKeyError as error:
            self._refused += 1
            self._observer.looked_up(_OUTCOMES[type(error)])
            raise
        self._observer.looked_up(LookedUp.FOUND)
        return key

    async def _get(self, kid: str | None) -> PyJWK:
        fetch: Fetch | None = None
        while (key := self._find(kid, now := current_time())) is None:
            if fetch is not None and not self._plan.was_announced_after(kid, fetch.request):
                raise self._not_found(kid, fetch, now)
            fetch = self._fetcher.current or self._start_fetch_for(kid, now)
            await fetch.wait()
        self._fetcher.start_if_due(now)
        return key

    def _find(self, kid: str | None, now: Now) -> PyJWK | None:
        """Return the key; ``None`` if a fetch is needed to decide."""
        if kid is None:
            return self._keyring.only(now.wall) if self._plan.is_valid(now) else None
        if not jwks.is_kid(kid):
            raise UnknownKey("the token's kid cannot be the name of a key")
        key = self._keyring.find(kid, now.wall)
        if key is not None and self._plan.is_valid(now):
            return key
        if seconds := self._negative_cache.seconds_left(kid, now.monotonic):
            raise _unlisted(kid, seconds)
        return None

    def _not_found(self, kid: str | None, fetch: Fetch, now: Now) -> SigningKeyError:
        """Return the error for a caller whose fetch ended without the key."""
        if kid is None or fetch.failure is not None:
            return self._unavailable(kid, now)
        self._negative_cache.add(kid, now.monotonic)
        return _unlisted(kid, self._negative_ttl)

    def _unavailable(self, kid: str | None, now: Now) -> KeysUnavailable:
        cause = self._plan.failure
        problem = "was broken off" if cause is None else f"failed with {type(cause).__name__}"
        error = KeysUnavailable(
            f"the signing keys are not available: the last fetch {problem}",
            fingerprint=None if kid is None else fingerprint(kid),
            retry_after=self._plan.next_allowed(kid, now)[0],
        )
        error.__cause__ = cause
        return error

    def _start_fetch_for(self, kid: str | None, now: Now) -> Fetch:
        """Start a fetch for a caller, or raise if none may start yet."""
        seconds, reason = self._plan.next_allowed(kid, now)
        if not seconds:
            return self._fetcher.start_fetch(FetchRequest(reason, now, kid))
        if kid is None or self._plan.failure is not None or not self._plan.is_valid(now):
            raise self._unavailable(kid, now)
        problem = f"key {fingerprint(kid)} is unknown, and the keys were fetched for another unknown one just now"
        raise UnknownKey(problem, fingerprint=fingerprint(kid), retry_after=seconds)

    def _replace_keys(self, keys: jwks.KeySet) -> None:
        self._keyring.replace(keys)
        for skipped in set(keys.skipped) - self._skipped:
            logger.warning("key of the issuer skipped", kid=skipped.fingerprint, problem=skipped.problem)
        self._skipped = frozenset(keys.skipped)

    def apply(self, event: KeyRotated) -> None:
        """Apply a rotation. Idempotent; the order of events does not matter.

        Needs no running event loop. The new key is fetched at once, and again shortly before its ``active_from`` if the
        issuer has not listed it by then; outside of ``async with`` that happens in the next call of `get`.

        Raises:
            InvalidOption: ``event`` is not a `KeyRotated`.
        """
        if not isinstance(event, KeyRotated):
            raise InvalidOption("event", f"must be a KeyRotated, not {type(event).__name__}")
        if self._issuer is not None and event.issuer not in (None, self._issuer):
            return
        self._negative_cache.discard(event.key_id)
        if not self._keyring.apply(event):
            return
        logger.info("signing key rotated", kid=fingerprint(event.key_id), compromised=event.compromised)
        # Callers do not need the compromised key, but its successor, whose name is not known.
        expected_at = -math.inf if event.compromised else (event.active_from or event.occurred_at).timestamp()
        self._plan.announce(event.key_id, expected_at, current_time())
        self._fetcher.notify_plan_changed()

    def attach(self, source: KeyEventSource) -> None:
        """Apply every `KeyRotated` that a subscriber or a revocation list receives.

        Where there is a choice, use the revocation list: it replays the events from before the start, so that a key
        that was compromised yesterday is refused from the first request on. A subscriber receives new events only,
        unless its transport starts with the history.
        """

        async def apply_rotation(event: KeyRotated) -> None:
            self.apply(event)

        source.on(KeyRotated)(apply_rotation)

    async def __aenter__(self) -> Self:
        """Fetch the keys, unless they are valid, and keep them up to date from now on.

        Raises:
            KeysUnavailable: the keys cannot be fetched; the reason is the ``__cause__``.
            Closed: it is open already.
        """
        self._fetcher.start()
        try:
            await self._fetch_first()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _fetch_first(self) -> None:
        now = current_time()
        if self._plan.is_valid(now):
            return
        fetch = self._fetcher.current or self._fetcher.start_fetch(FetchRequest(Reason.REFRESH, now))
        if not self._waits:
            return
        await fetch.wait()
        if fetch.failure is not None:
            raise self._unavailable(None, current_time())

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the background tasks; callers that wait for a fetch get `Closed`. Idempotent, and cancelling is safe.

        The known keys stay, and it may be entered again.
        """
        await self._fetcher.stop()


def _unlisted(kid: str, seconds: float) -> UnknownKey:
    shown = fingerprint(kid)
    return UnknownKey(f"key {shown} is not listed by the issuer", fingerprint=shown, retry_after=seconds)
