"""`ClaimNames`: by which names an issuer's tokens say whose they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jwt_events.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """The names of the claims that say whose a token is, for issuers that use others than the standard ones.

    Names are those of claims on the top level of the payload.

    Attributes:
        token: the claim that identifies the token.
        user: the claim that identifies its user.
        session: the claim that identifies its session.
        client: the claims that identify its client, one name or several; each of them is looked at.
        issued_at: the claim that says when it was issued, in seconds since 1970.
        expires_at: the claim that says when it expires, in seconds since 1970.

    Raises:
        InvalidOption: a name is not text, or empty.
    """

    token: str = "jti"
    user: str = "sub"
    session: str = "sid"
    client: tuple[str, ...] | str = ("client_id", "azp")
    issued_at: str = "iat"
    expires_at: str = "exp"

    def __post_init__(self) -> None:
        """Check all names."""
        clients = (self.client,) if isinstance(self.client, str) else self.client
        if not isinstance(clients, Iterable):
            raise InvalidOption("claim_names", f"client must be names of claims, not {type(clients).__name__}")
        object.__setattr__(self, "client", tuple(clients))
        for role in ("token", "user", "session", "issued_at", "expires_at"):
            _check(role, getattr(self, role))
        for name in self.client:
            _check("client", name)

    @property
    def clients(self) -> tuple[str, ...]:
        """The names in ``client``."""
        return tuple(self.client)


def _check(role: str, name: object) -> None:
    if not isinstance(name, str):
        raise InvalidOption("claim_names", f"{role} must be the name of a claim, not {type(name).__name__}")
    if not name.strip():
        raise InvalidOption("claim_names", f"{role} is empty: leave it out for the standard name")


STANDARD: ClaimNames = ClaimNames()
"""The names of RFC 7519, OpenID Connect and RFC 8693."""


def claim_names_of(value: object) -> ClaimNames:
    """Return the value of an option ``claim_names``; ``None`` means the standard names.

    Raises:
        InvalidOption: it is something else.
    """
    if value is None:
        return STANDARD
    if not isinstance(value, ClaimNames):
        raise InvalidOption("claim_names", f"must be ClaimNames(…), not {type(value).__name__}")
    return value
