"""What a guard let in: one token, and all those of one request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Admission(Generic[T]):
    """The result for a request that is let in.

    Attributes:
        value: the return value of ``decode``.
        claims: the claims that were checked; pass them to `RevocationList.watch`. Their ``kid`` is the one that
            ``decode`` or ``claims_of`` returned, else that of the token's header. If these differ, rules about either
            of them cover the token.
    """

    value: T
    claims: Mapping[str, object]


def may_have_expired(admission: Admission[Any]) -> bool:
    """Return whether ``decode`` must decide again: the token's ``exp`` is past, or not among its claims."""
    exp = admission.claims.get("exp")
    return isinstance(exp, bool) or not isinstance(exp, int | float) or not time.time() < exp


class Admissions(Generic[T]):
    """The admissions of one request by one guard, by token.

    Attributes:
        sourced: the tokens of the request by the function that found them; each is called once, as it may redeem a
            ticket.
    """

    def __init__(self) -> None:
        self.sourced: dict[Callable[[Any], object], Any] = {}
        self._by_token: dict[str, Admission[T]] = {}
        self._own: str | None = None

    @property
    def own(self) -> Admission[T] | None:
        """The one by the request's ``Authorization`` header, else the first one; ``None`` if there is none."""
        first = next(iter(self._by_token.values()), None)
        return first if self._own is None else self._by_token[self._own]

    def find(self, token: str) -> Admission[T] | None:
        """Return the admission of a token; ``None`` if it was not let in yet."""
        return self._by_token.get(token)

    def keep(self, token: str, admission: Admission[T], *, is_own: bool) -> None:
        """Keep the admission of a token.

        Args:
            token: the token.
            admission: replaces an earlier one of this token.
            is_own: whether the token came in the ``Authorization`` header.
        """
        self._by_token[token] = admission
        if is_own:
            self._own = token
