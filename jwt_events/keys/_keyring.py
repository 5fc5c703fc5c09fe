"""`Keyring`: which signing keys are valid at a given time. Pure: the time is passed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from jwt_events.errors import CompromisedKey, RetiredKey, UnknownKey
from jwt_events.events import KeyRotated, compromised_keys, fingerprint, retired_key
from jwt_events.keys._jwks import KeySet

if TYPE_CHECKING:
    from jwt import PyJWK

RETIREMENT_LEEWAY = 5.0
"""Seconds after ``retire_at`` for which a retired key is still valid: clocks differ, and requests are under way."""

MAX_NEGATIVE_ENTRIES = 1_024


class _Retirement(NamedTuple):
    """When a key retires, according to one event.

    Attributes:
        occurred_at: when the event occurred, in seconds since 1970.
        retire_at: the instant from which the key is retired, in seconds since 1970; infinite for never.
    """

    occurred_at: float
    retire_at: float

    def precedence(self) -> tuple[float, float]:
        """Return the sort key by which the greatest counts: the newest event; of simultaneous ones the strictest."""
        return self.occurred_at, -self.retire_at


class Keyring:
    """The keys that the issuer listed last, with the rotations that the bus reported.

    The order and repetition of rotations and key sets do not matter:

    * A compromised key is never valid again, whether it is listed, was listed before, or is listed later, also under
      another name. Compromised keys are kept for ever, as no event says when they cease to matter; they are few, and
      come from the bus alone. Of an event that names two keys as compromised, both are.
    * The newest event about a key (by ``occurred_at``) decides when it retires; so a roll back to the previous key,
      which is a rotation too, makes it valid again. Retirements are kept for ever as well, for the same reason.
    """

    def __init__(self) -> None:
        self._named: dict[str, PyJWK] = {}
        self._unnamed: tuple[PyJWK, ...] = ()
        self._compromised: set[str] = set()
        self._leaked: list[object] = []
        self._retirements: dict[str, _Retirement] = {}

    def __len__(self) -> int:
        return len(self._named) + len(self._unnamed)

    def __contains__(self, kid: str) -> bool:
        return kid in self._named

    def replace(self, keys: KeySet) -> None:
        """Replace the listed keys by those of a fetch."""
        self._named, self._unnamed = keys.named, keys.unnamed
        self._remove_compromised()

    def _remove_compromised(self) -> None:
        """Remove compromised keys, also where the same key material is listed under other names, or without one."""
        compromised = [key.key for kid, key in self._named.items() if kid in self._compromised]
        self._leaked += [material for material in compromised if material not in self._leaked]
        self._compromised |= {kid for kid, key in self._named.items() if key.key in self._leaked}
        self._named = {kid: key for kid, key in self._named.items() if kid not in self._compromised}
        self._unnamed = tuple(key for key in self._unnamed if key.key not in self._leaked)

    def apply(self, event: KeyRotated) -> bool:
        """Apply a rotation. Return whether the issuer may list keys now that are not here."""
        occurred_at = event.occurred_at.timestamp()
        if (retired := retired_key(event)) is not None and event.retire_at is not None:
            self._merge_retirement(retired, _Retirement(occurred_at, event.retire_at.timestamp()))
        if compromised := compromised_keys(event):
            is_new = not self._compromised.issuperset(compromised)
            self._compromised.update(compromised)
            self._remove_compromised()
            return is_new
        if event.key_id != retired:
            self._merge_retirement(event.key_id, _Retirement(occurred_at, math.inf))
        return event.key_id not in self._named and event.key_id not in self._compromised

    def _merge_retirement(self, kid: str, new: _Retirement) -> None:
        self._retirements[kid] = max(new, self._retirements.get(kid, new), key=_Retirement.precedence)

    def find(self, kid: str, now: float) -> PyJWK | None:
        """Return the key with this name; ``None`` if it is not listed.

        Args:
            kid: its name.
            now: seconds since 1970.

        Raises:
            CompromisedKey: the key leaked, whether it is listed or not.
            RetiredKey: a rotation retired it, whether it is listed or not.
        """
        if kid in self._compromised:
            raise CompromisedKey(f"key {fingerprint(kid)} is compromised", fingerprint=fingerprint(kid))
        if self._is_retired(kid, now):
            raise RetiredKey(f"key {fingerprint(kid)} is retired", fingerprint=fingerprint(kid))
        return self._named.get(kid)

    def only(self, now: float) -> PyJWK:
        """Return the key for tokens that name none.

        Raises:
            UnknownKey: not exactly one key is valid.
        """
        usable = self.usable(now)
        if len(usable) != 1:
            raise UnknownKey(f"the token names no key (kid), and {len(usable)} are good")
        return usable[0]

    def usable(self, now: float) -> list[PyJWK]:
        """Return all valid keys, with names and without.

        Args:
            now: seconds since 1970.
        """
        named = [key for kid, key in self._named.items() if not self._is_retired(kid, now)]
        return [*named, *self._unnamed]

    def _is_retired(self, kid: str, now: float) -> bool:
        retirement = self._retirements.get(kid)
        return retirement is not None and now > retirement.retire_at + RETIREMENT_LEEWAY


class NegativeCache:
    """Names of keys that the issuer did not list, each for a limited time. At most 1,024: the oldest is evicted first.

    Evicting a name costs at most one fetch, and that only when the cooldown allows it.

    Args:
        ttl: seconds for which a name is kept.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, kid: str, now: float) -> None:
        """Add a name; ``now`` is on the monotonic clock."""
        self._until.pop(kid, None)
        if len(self._until) >= MAX_NEGATIVE_ENTRIES:
            del self._until[next(iter(self._until))]
        self._until[kid] = now + self._ttl

    def discard(self, kid: str) -> None:
        """Remove a name, if it is present."""
        self._until.pop(kid, None)

    def seconds_left(self, kid: str, now: float) -> float:
        """Return the seconds for which a name still counts as absent; 0 if it does not."""
        return max(0.0, self._until.get(kid, now) - now)
