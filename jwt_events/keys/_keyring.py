"""Which signing keys are good at a given time. Pure: no clock is read here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from jwt_events.errors import CompromisedKey, RetiredKey
from jwt_events.events import KeyRotated, fingerprint
from jwt_events.keys._jwks import KeySet

if TYPE_CHECKING:
    from jwt import PyJWK

RETIREMENT_LEEWAY = 5.0
"""Seconds after ``retire_at`` for which a retired key is still good: clocks differ, and requests are on their way."""

MAX_ABSENT = 1_024


class _Standing(NamedTuple):
    """The newest that was said about when a key ends.

    Attributes:
        said_at: when, in seconds since 1970.
        rigour: minus the instant from which it is retired: of two things said at once the stricter one is greater.
    """

    said_at: float
    rigour: float


class Keyring:
    """The keys that the issuer listed last, and what the bus said about them.

    It comes to the same in whatever order, and however often, rotations are heard and key sets are put in:

    * A compromised key is never good again, even if it is listed, was listed before, or is listed later, and be it
      under another name. These are kept for ever, as nothing says when they stop to matter; they are few, and come
      from the bus alone.
    * When a key retires is what the newest event (by ``occurred_at``) says about it; so a roll back to the previous
      key, which is a rotation too, makes it good again. These are kept for ever as well, for the same reason.
    """

    def __init__(self) -> None:
        self._named: dict[str, PyJWK] = {}
        self._unnamed: tuple[PyJWK, ...] = ()
        self._compromised: set[str] = set()
        self._leaked: list[object] = []
        self._standings: dict[str, _Standing] = {}

    def __len__(self) -> int:
        return len(self._named) + len(self._unnamed)

    def __contains__(self, kid: str) -> bool:
        return kid in self._named

    def put(self, keys: KeySet) -> None:
        """Replace the keys by what was fetched."""
        self._named, self._unnamed = keys.named, keys.unnamed
        self._withdraw_compromised()

    def _withdraw_compromised(self) -> None:
        """Drop what is compromised. A key that leaked is worthless under its other names as well, and under none."""
        compromised = [key.key for kid, key in self._named.items() if kid in self._compromised]
        self._leaked += [material for material in compromised if material not in self._leaked]
        self._compromised |= {kid for kid, key in self._named.items() if key.key in self._leaked}
        self._named = {kid: key for kid, key in self._named.items() if kid not in self._compromised}
        self._unnamed = tuple(key for key in self._unnamed if key.key not in self._leaked)

    def hear(self, event: KeyRotated) -> bool:
        """Take in a rotation. Return whether the issuer may list something now that is not here."""
        kid, previous, said_at = event.key_id, event.previous_key_id, event.occurred_at.timestamp()
        if event.retire_at is not None and previous is not None and previous != kid:
            self._note(previous, _Standing(said_at, -event.retire_at.timestamp()))
        if event.compromised:
            is_news = kid not in self._compromised
            self._compromised.add(kid)
            self._withdraw_compromised()
            return is_news
        self._note(kid, _Standing(said_at, -math.inf))
        return kid not in self._named and kid not in self._compromised

    def _note(self, kid: str, standing: _Standing) -> None:
        self._standings[kid] = max(standing, self._standings.get(kid, standing))

    def find(self, kid: str, now: float) -> PyJWK | None:
        """Return the key with this name; ``None`` if it is not listed.

        Args:
            kid: its name.
            now: seconds since 1970.

        Raises:
            CompromisedKey: it leaked, whether it is listed or not.
            RetiredKey: it was withdrawn, whether it is listed or not.
        """
        if kid in self._compromised:
            raise CompromisedKey(f"key {fingerprint(kid)} is compromised", fingerprint=fingerprint(kid))
        if self._is_retired(kid, now):
            raise RetiredKey(f"key {fingerprint(kid)} is retired", fingerprint=fingerprint(kid))
        return self._named.get(kid)

    def usable(self, now: float) -> list[PyJWK]:
        """Return all good keys, with names and without.

        Args:
            now: seconds since 1970.
        """
        named = [key for kid, key in self._named.items() if not self._is_retired(kid, now)]
        return [*named, *self._unnamed]

    def _is_retired(self, kid: str, now: float) -> bool:
        standing = self._standings.get(kid)
        return standing is not None and now > RETIREMENT_LEEWAY - standing.rigour


class NegativeCache:
    """Names that a fetch did not bring, for a while. At most 1,024: the oldest goes first.

    Losing one costs a fetch at most, and that only when the cooldown allows it.

    Args:
        ttl: seconds for which a name is remembered.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, kid: str, now: float) -> None:
        """Remember a name; ``now`` is on the monotonic clock."""
        self._until.pop(kid, None)
        if len(self._until) >= MAX_ABSENT:
            del self._until[next(iter(self._until))]
        self._until[kid] = now + self._ttl

    def discard(self, kid: str) -> None:
        """Forget a name, if it is here."""
        self._until.pop(kid, None)

    def seconds_left(self, kid: str, now: float) -> float:
        """Return for how much longer a name counts as absent; 0 if it does not."""
        return max(0.0, self._until.get(kid, now) - now)
