"""What a token must grant for an endpoint: scopes. Pure.

Sources: RFC 6749 §3.3 (which characters a scope may have), RFC 9068 §2.2.3 (``scope``, separated by spaces). ``scp``, a
list or text, is what Microsoft Entra and Okta issue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from jwt_events.errors import InvalidOption
from jwt_events.guard._refusal import Refused

if TYPE_CHECKING:
    from jwt_events.guard._admissions import Admission

T = TypeVar("T")

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_CLAIMS = ("scope", "scp")


class Requirement:
    """Scopes that a token must have, all of them.

    Args:
        scopes: each one a scope of its own; text is one.

    Raises:
        InvalidOption: what no token can grant: text with spaces or quotes, nothing, something else than text.
    """

    def __init__(self, scopes: Iterable[Any]) -> None:
        found = [scopes] if isinstance(scopes, str) else list(scopes)
        for scope in found:
            if not isinstance(scope, str):
                raise InvalidOption("scopes", f"must be text, not {type(scope).__name__}")
            if _SCOPE.fullmatch(scope) is None:
                raise InvalidOption(
                    "scopes", "must be one scope each, of ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)"
                )
        self.scopes: tuple[str, ...] = tuple(dict.fromkeys(found))

    def __str__(self) -> str:
        return " ".join(self.scopes)

    def __bool__(self) -> bool:
        return bool(self.scopes)

    def is_met_by(self, claims: Mapping[str, object]) -> bool:
        """Return whether a token has all scopes. Of a token with both claims, each must have them."""
        granted = [_granted(claims[name]) for name in _CLAIMS if claims.get(name) is not None]
        return not self.scopes or (bool(granted) and all(one.issuperset(self.scopes) for one in granted))

    def met_by(self, admission: Admission[T], *, realm: str | None) -> Admission[T]:
        """Return an admission whose token grants what is required, or raise.

        Raises:
            Refused: there is no token, or it lacks a scope.
        """
        if not self.scopes:
            return admission
        if admission.is_anonymous:
            raise Refused("missing_token", realm=realm)
        if not self.is_met_by(admission.claims):
            raise Refused("insufficient_scope", realm=realm, scope=str(self))
        return admission


def requirement_of(scopes: Iterable[str]) -> Requirement:
    """Return the requirement of some scopes, which is made once.

    Raises:
        InvalidOption: as `Requirement` does.
    """
    if scopes in ((), []):
        return _NOTHING
    if not isinstance(scopes, Iterable):
        raise InvalidOption("scopes", f"must be text or a list, not {type(scopes).__name__}")
    found = (scopes,) if isinstance(scopes, str) else tuple(scopes)
    return _made(found) if all(isinstance(one, str) for one in found) else Requirement(found)


@lru_cache(maxsize=1024)
def _made(scopes: tuple[str, ...]) -> Requirement:
    return Requirement(scopes)


_NOTHING = Requirement(())


def _granted(claim: object) -> frozenset[str]:
    if isinstance(claim, str):
        return frozenset(claim.split(" "))
    if isinstance(claim, list | tuple | set | frozenset):
        return frozenset(one for one in claim if isinstance(one, str))
    return frozenset()
