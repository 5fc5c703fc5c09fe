"""What a guard let in: one token, and all those of one request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from jwt_events._internal.functions import awaited, called
from jwt_events.guard._requirement import Requirement, requirement_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, repr=False)
class Admission(Generic[T_co]):
    """The result for a request that is let in.

    Attributes:
        value: the return value of ``decode``.
        claims: the claims that were checked; pass them to `RevocationList.watch`. Their ``kid`` is the one that
            ``decode`` or ``claims_of`` returned, else that of the token's header. If these differ, rules about either
            of them cover the token.
        is_anonymous: whether the request brought no token, which a guard with ``optional=True`` lets in. The value is
            ``None`` then, and there are no claims.
    """

    value: T_co
    claims: Mapping[str, object]
    is_anonymous: bool = False


def may_have_expired(admission: Admission[Any]) -> bool:
    """Return whether ``decode`` must decide again: the token's ``exp`` is past, or not among its claims."""
    exp = admission.claims.get("exp")
    return isinstance(exp, bool) or not isinstance(exp, int | float) or not time.time() < exp


class Renewable(Protocol):
    """What goes on for as long as a token is good."""

    def renew(self, admission: Admission[Any]) -> None:
        """Go on with a new token."""


class Admissions(Generic[T]):
    """The admissions of one request by one guard, by token.

    Attributes:
        connections: what was opened by these admissions, and may go on with a new token.
        required: the scopes that its token must have.
        is_current: whether the position that the request names is in force.
        renewed: the token that took the place of the one that the request brought; ``None`` if there is none.
    """

    def __init__(self) -> None:
        self.connections: list[Renewable] = []
        self._elsewhere: dict[Callable[[Any], object], Any] = {}
        self.required: Requirement = requirement_of(())
        self.is_current = False
        self.renewed: str | None = None
        self._by_token: dict[str | None, Admission[T]] = {}
        self._own: str | None = None
        self._has_own = False

    @classmethod
    def of(cls, guard: object, requests: MutableMapping[Any, Any], key: Any = "jwt_events.admissions") -> Admissions[T]:
        """Return those of a request by a guard; they live as long as the request.

        Args:
            guard: what lets the request in.
            requests: the mapping of a request in which frameworks and middlewares keep what they know of it.
            key: the key in it.
        """
        by_guard: dict[object, Admissions[T]] = requests.setdefault(key, {})
        if guard not in by_guard:
            by_guard[guard] = cls()
        return by_guard[guard]

    @property
    def own(self) -> Admission[T] | None:
        """The one by the token where the guard looks for it, else the first one; ``None`` if there is none."""
        first = next(iter(self._by_token.values()), None)
        return self._by_token[self._own] if self._has_own else first

    async def find_elsewhere(self, source: Callable[[Any], Any], connection: object) -> Any:
        """Return the token that a function finds for the request; it is called once, as it may redeem a ticket."""
        if source not in self._elsewhere:
            self._elsewhere[source] = await awaited("token", called("token", source, connection))
        return self._elsewhere[source]

    def find(self, token: str) -> Admission[T] | None:
        """Return the admission of a token; ``None`` if it was not let in yet."""
        return self._by_token.get(token)

    def keep(self, token: str | None, admission: Admission[T], *, is_own: bool) -> None:
        """Keep the admission of a token.

        Args:
            token: the token; ``None`` for an anonymous request.
            admission: replaces an earlier one of this token.
            is_own: whether the token came where the guard looks for it: in the ``Authorization`` header.
        """
        self._by_token[token] = admission
        if is_own:
            self._own, self._has_own = token, True

    def renew(self, token: str, admission: Admission[T]) -> None:
        """Let a new token take the place of all before, and keep only this one: connections may go on for months."""
        self._by_token = {token: admission}
        self._own, self._has_own, self.renewed = token, True, token
