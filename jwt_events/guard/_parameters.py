"""What the constructors of guards accept, for type checkers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypedDict, TypeVar

from jwt_events.guard._position import PositionFrom

V = TypeVar("V")


class GuardOptions(TypedDict, Generic[V], total=False):
    """The options of `Guard` that do not decide what it returns; described there."""

    claims_of: Callable[[V], Mapping[str, object] | Awaitable[Mapping[str, object]]]
    realm: str | None
    max_token_bytes: int
    cookie: str | None
    header: str
    until_expiry: bool
    at_least: PositionFrom | None
