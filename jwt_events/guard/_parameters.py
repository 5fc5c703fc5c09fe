"""What the constructors of guards accept, for type checkers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Literal, TypedDict, TypeVar

from jwt_events.guard._position import PositionFrom

M = TypeVar("M", bound=Mapping[str, object])
V = TypeVar("V")


class _Options(TypedDict, total=False):
    """The options of `Guard` that do not decide what it returns; described there."""

    realm: str | None
    max_token_bytes: int
    cookie: str | None
    header: str
    until_expiry: bool
    at_least: PositionFrom | None


class _Claims(TypedDict, Generic[V]):
    """Where the claims are, which a guard must be told if what ``decode`` returns is no mapping.

    It keeps a coroutine function from matching the overload for plain ones, too: mypy takes `Any` where two match.
    """

    claims_of: Callable[[V], Mapping[str, object] | Awaitable[Mapping[str, object]]]


class GuardOptions(_Options, total=False):
    """Those of a guard that refuses requests without a token."""

    optional: Literal[False]


class ModelOptions(GuardOptions, _Claims[V], Generic[V]):
    """Those of a guard that refuses requests without a token, and whose ``decode`` returns no mapping."""


class OptionalGuardOptions(_Options):
    """Those of a guard that may let requests in without a token; their value is ``None``."""

    optional: bool


class OptionalModelOptions(OptionalGuardOptions, _Claims[V], Generic[V]):
    """Those of a guard that may let requests in without a token, and whose ``decode`` returns no mapping."""
