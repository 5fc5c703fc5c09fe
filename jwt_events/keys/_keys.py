"""Signing keys that follow rotations as they happen, and survive an issuer that cannot be reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from loguru import logger

from jwt_events._internal import options
from jwt_events.errors import InvalidOption, KeysUnavailable, SigningKeyError, UnknownKey
from jwt_events.events import KeyRotated, fingerprint
from jwt_events.keys import _jwks as jwks
from jwt_events.keys._fetcher import Fetch, Fetcher, FetchFunction, current_time
from jwt_events.keys._keyring import Keyring, NegativeCache
from jwt_events.keys._schedule import FetchPlan, FetchRequest, Now, Reason

if TYPE_CHECKING:
    from jwt import PyJWK


class KeyEventSource(Protocol):
    """Where rotations are heard: a `Subscriber`, or a revocation list."""

    def on(self, kind: type[KeyRotated], /) -> Callable[[Callable[[KeyRotated], Any]], object]:
        """Register the decorated function for events of this kind."""


@dataclass(frozen=True, slots=True)
class SigningKeysStats:
    """What became of the keys so far.

    Attributes:
        keys: how many are known now.
        age: seconds since the last successful fetch; infinite if there was none.
        fetches: fetches that were begun.
        failures: those of them that failed.
        refused: calls of `SigningKeys.get` that ended with a `SigningKeyError`.
    """

    keys: int
    age: float
    fetches: int
    failures: int
    refused: int


class SigningKeys:
    """The public keys of an issuer, fetched when they are needed and kept up to date by `KeyRotated` events.

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

    Inside ``async with`` it keeps itself up to date: entering fetches the keys, an announced key is fetched before it
    is asked for, and the keys are renewed after half of ``max_age``. Outside of it, before and after, `get` works as
    well; fetches then begin only when somebody asks. All calls belong to one event loop, and to its thread.

    Fetches are shared: there is never more than one, however many ask. They begin for three reasons (a caller asks for
    an unknown key; a key was announced; the keys are half as old as they may become), and at most one of each in
    ``cooldown`` seconds, even if all of them fail. A caller's fetch that finds what it was for does not count.

    A failing fetch changes nothing for the keys that are there, until they are ``max_age`` old. A key is accepted as
    soon as it is listed, even before its ``active_from``, so that tokens of a clock that runs ahead are not refused.
    It is refused 5 seconds after its ``retire_at``, and at once and for ever when it is compromised, whatever is
    listed. An issuer must therefore never give a compromised ``kid`` to another key.

    Args:
        fetch: a coroutine function without arguments that returns the JWK Set (RFC 7517), decoded.
        cooldown: seconds between two fetches for the same reason.
        negative_ttl: seconds for which a key that was looked for in vain is refused without another fetch; a
            `KeyRotated` ends it.
        max_age: seconds since the last successful fetch after which keys are no longer good.
        timeout: seconds that a fetch may take.
        issuer: whose keys these are. Events that name another issuer are ignored; ``None`` takes all.

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
        issuer: str | None = None,
    ) -> None:
        if not callable(fetch):
            raise InvalidOption("fetch", "must be a coroutine function without arguments")
        jwks.require_pyjwt()
        self._issuer = None if issuer is None else options.name("issuer", issuer)
        self._negative_ttl = options.seconds("negative_ttl", negative_ttl)
        self._keyring = Keyring()
        self._absent = NegativeCache(self._negative_ttl)
        self._plan = FetchPlan(
            cooldown=options.seconds("cooldown", cooldown), max_age=options.seconds("max_age", max_age)
        )
        self._fetcher = Fetcher(fetch, timeout=options.seconds("timeout", timeout), plan=self._plan, deliver=self._put)
        self._skipped: frozenset[jwks.Skipped] = frozenset()
        self._refused = 0

    def __repr__(self) -> str:
        age = self._plan.age(current_time())
        state = "never fetched" if math.isinf(age) else f"{age:.0f} s old"
        failing = "" if self._plan.failure is None else ", failing"
        return f"<SigningKeys {len(self._keyring)} keys, {state}{failing}>"

    @property
    def stats(self) -> SigningKeysStats:
        """What became of the keys so far."""
        age = self._plan.age(current_time())
        return SigningKeysStats(len(self._keyring), age, self._fetcher.fetches, self._fetcher.failures, self._refused)

    async def get(self, kid: str | None) -> PyJWK:
        """Return the key to verify a token with. Pass it to ``jwt.decode``, which then accepts its algorithm only.

        A key that is known is returned without waiting. For another one the keys are fetched, unless that was tried
        within ``cooldown`` or found nothing within ``negative_ttl``: then it is refused at once, and the error says
        when to try again.

        Cancelling is safe, and does not disturb others who wait for the same fetch.

        Args:
            kid: the ``kid`` of the token's header, as it came: anything that cannot be a key's name is refused.
                ``None`` if the token has none; that is accepted only while exactly one key is good. A key that is
                listed without a ``kid`` cannot be withdrawn by an event, as no event can name it.

        Raises:
            UnknownKey: the issuer did not list it, or it may not be looked for yet.
            RetiredKey: a rotation withdrew it.
            CompromisedKey: it leaked.
            KeysUnavailable: the keys cannot be fetched; why is the ``__cause__``.
            Closed: `aclose` was called meanwhile.
        """
        try:
            return await self._get(kid)
        except SigningKeyError:
            self._refused += 1
            raise

    async def _get(self, kid: str | None) -> PyJWK:
        flight: Fetch | None = None
        while (key := self._find(kid, now := current_time())) is None:
            if flight is not None and not self._plan.was_announced_after(kid, flight.departure):
                raise self._not_found(kid, flight, now)
            flight = self._fetcher.flight or self._begin_for(kid, now)
            await flight.land()
        self._fetcher.begin_if_due(now)
        return key

    def _find(self, kid: str | None, now: Now) -> PyJWK | None:
        """Return the key; ``None`` if only a fetch can tell."""
        if kid is None:
            return self._only_key(now) if self._plan.is_good(now) else None
        if not jwks.is_kid(kid):
            raise UnknownKey("the token's kid cannot be the name of a key")
        key = self._keyring.find(kid, now.wall)
        if key is not None and self._plan.is_good(now):
            return key
        if seconds := self._absent.seconds_left(kid, now.monotonic):
            raise _unlisted(kid, seconds)
        return None

    def _only_key(self, now: Now) -> PyJWK:
        usable = self._keyring.usable(now.wall)
        if len(usable) != 1:
            raise UnknownKey(f"the token names no key (kid), and {len(usable)} are good")
        return usable[0]

    def _not_found(self, kid: str | None, flight: Fetch, now: Now) -> SigningKeyError:
        """Return what to tell a caller for whom a fetch came back without the key."""
        if kid is None or flight.failure is not None:
            return self._unavailable(kid, now)
        self._absent.add(kid, now.monotonic)
        return _unlisted(kid, self._negative_ttl)

    def _unavailable(self, kid: str | None, now: Now) -> KeysUnavailable:
        cause = self._plan.failure
        problem = "was broken off" if cause is None else f"failed with {type(cause).__name__}"
        error = KeysUnavailable(
            f"the signing keys are not available: the last fetch {problem}",
            fingerprint=None if kid is None else fingerprint(kid),
            retry_after=self._plan.opening(kid, now)[0],
        )
        error.__cause__ = cause
        return error

    def _begin_for(self, kid: str | None, now: Now) -> Fetch:
        """Begin a fetch for a caller, or refuse to."""
        seconds, reason = self._plan.opening(kid, now)
        if not seconds:
            return self._fetcher.begin(FetchRequest(reason, now, kid))
        if kid is None or self._plan.failure is not None or not self._plan.is_good(now):
            raise self._unavailable(kid, now)
        problem = f"key {fingerprint(kid)} is unknown, and the keys were fetched for another unknown one just now"
        raise UnknownKey(problem, fingerprint=fingerprint(kid), retry_after=seconds)

    def _put(self, keys: jwks.KeySet) -> None:
        self._keyring.put(keys)
        for skipped in set(keys.skipped) - self._skipped:
            logger.warning("key of the issuer skipped", kid=skipped.fingerprint, problem=skipped.problem)
        self._skipped = frozenset(keys.skipped)

    def apply(self, event: KeyRotated) -> None:
        """Take in a rotation. Idempotent; the order of events does not matter.

        Needs no running event loop. The new key is fetched at once, and again as its ``active_from`` comes near if the
        issuer does not list it until then; outside of ``async with`` that happens when the next caller asks.

        Raises:
            InvalidOption: it is not a `KeyRotated`.
        """
        if not isinstance(event, KeyRotated):
            raise InvalidOption("event", f"must be a KeyRotated, not {type(event).__name__}")
        if self._issuer is not None and event.issuer not in (None, self._issuer):
            return
        self._absent.discard(event.key_id)
        if not self._keyring.hear(event):
            return
        logger.info("signing key rotated", kid=fingerprint(event.key_id), compromised=event.compromised)
        # Nobody waits for a compromised key, but for its successor, whose name is not known.
        expected_at = -math.inf if event.compromised else (event.active_from or event.occurred_at).timestamp()
        self._plan.announce(event.key_id, expected_at, current_time())
        self._fetcher.tell_of_news()

    def attach(self, source: KeyEventSource) -> None:
        """Apply every `KeyRotated` that a subscriber or a revocation list hears.

        A revocation list is the better one where there is a choice: it replays what happened before the start, so that
        a key that was compromised yesterday is refused from the first request on. A subscriber brings what happens from
        now on, unless its transport starts with the history.
        """

        async def apply_rotation(event: KeyRotated) -> None:
            self.apply(event)

        source.on(KeyRotated)(apply_rotation)

    async def __aenter__(self) -> Self:
        """Fetch the keys, unless they are here and good, and keep them up to date from now on.

        Raises:
            KeysUnavailable: they cannot be fetched; why is the ``__cause__``.
            Closed: it was entered before and not left.
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
        if self._plan.is_good(now):
            return
        flight = self._fetcher.flight or self._fetcher.begin(FetchRequest(Reason.AGED, now))
        await flight.land()
        if flight.failure is not None:
            raise self._unavailable(None, current_time())

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what runs in the background; who waits for a fetch gets `Closed`. Idempotent, and cancelling is safe.

        What is known stays, and it may be entered again.
        """
        await self._fetcher.stop()


def _unlisted(kid: str, seconds: float) -> UnknownKey:
    stands_for = fingerprint(kid)
    return UnknownKey(f"key {stands_for} is not listed by the issuer", fingerprint=stands_for, retry_after=seconds)
