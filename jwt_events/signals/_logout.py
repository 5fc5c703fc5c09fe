"""`LogoutTokens`: logout tokens of OpenID Connect Back-Channel Logout 1.0, verified and turned into events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from jwt_events.events import EventType, SessionDestroyed, TokenRevoked
from jwt_events.signals._identity import build, event_id, instant, metadata
from jwt_events.signals._token import ASYMMETRIC, SignedToken, refused
from jwt_events.signals._verifier import Keys, Verifier, identifier

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
"""Member of ``events`` that makes a token a logout token."""

_OFFLINE = "revoke_offline_access"  # what Keycloak adds, true or false, if offline sessions are to end too


class LogoutTokens:
    """Verifies logout tokens of one provider and turns each into an event.

    ::

        tokens = LogoutTokens("https://id.example", "my-client-id", SigningKeys(fetch))
        event = await tokens.event(form["logout_token"])

    A token with a ``sid`` becomes a `SessionDestroyed`; one with a ``sub`` alone a `TokenRevoked` of the user's tokens
    that were issued up to its ``iat``. The event's id comes from ``iss`` and ``jti``, so a token that is sent again, or
    to several instances, is one event on the bus. Keeps no state between calls.

    Args:
        issuer: the ``iss``, exactly as the provider writes it.
        audience: your client id, or several.
        keys: the provider's `SigningKeys`, or a function, plain or async, that takes the ``kid`` and returns the
            ``PyJWK``, or ``None`` for an unknown one.
        leeway: seconds that clocks may differ, for ``iat`` and ``exp``.
        require_typ: whether a token must say that it is a logout token (``typ`` of ``logout+jwt``), which OpenID
            recommends and some providers do not; otherwise it may have no ``typ``, or ``JWT``.
        algorithms: the signature algorithms that are accepted. Name one with a shared secret (``HS256``) only if the
            provider uses it; ``none`` is never accepted.

    Raises:
        InvalidOption: an option cannot work.
        ImportError: the extra ``keys`` is not installed.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Iterable[str],
        keys: Keys,
        *,
        leeway: float = 60.0,
        require_typ: bool = False,
        algorithms: Iterable[str] = ASYMMETRIC,
    ) -> None:
        self._verifier = Verifier(issuer, audience, keys, leeway=leeway, allowed=algorithms)
        self._types: tuple[str | None, ...] = ("logout+jwt",) if require_typ else ("logout+jwt", "jwt", None)

    def __repr__(self) -> str:
        return f"<LogoutTokens of {self.issuer}>"

    @property
    def issuer(self) -> str:
        """The issuer whose tokens are accepted."""
        return self._verifier.issuer

    async def event(self, token: str) -> SessionDestroyed | TokenRevoked:
        """Return the event that a logout token stands for.

        Cancelling is safe.

        Raises:
            SignalRefused: it is not a valid logout token.
            Unavailable: the keys cannot be fetched at the moment; try again.
        """
        verified = await self._verifier.verify(token, self._check)
        return _event(self.issuer, verified.claims)

    def _check(self, token: SignedToken, now: float) -> None:
        """Refuse what is no logout token (Back-Channel Logout 1.0 §2.6)."""
        claims = token.claims
        if token.typ not in self._types:
            raise refused("the typ of the header is not logout+jwt")
        if "exp" not in claims:
            raise refused("exp is missing")
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT), dict):
            raise refused("events has no member for back-channel logout")
        if not events.keys() <= {LOGOUT, _OFFLINE} or not isinstance(events.get(_OFFLINE, True), bool):
            raise refused("events has more than one member")
        if "nonce" in claims:
            raise refused("a nonce is not allowed in a logout token")
        if claims.get("sub") is None and claims.get("sid") is None:
            raise refused("sub and sid are both missing")
        for name in ("sub", "sid"):
            if claims.get(name) is not None:
                identifier(claims[name], name)


def _event(issuer: str, claims: dict[str, Any]) -> SessionDestroyed | TokenRevoked:
    said = instant(claims["iat"])
    common: dict[str, Any] = {
        "id": event_id(issuer, claims["jti"]),
        "occurred_at": said,
        "user_id": claims.get("sub"),
        "reason": "back-channel logout",
        "metadata": metadata(issuer=issuer),
    }
    if claims.get("sid") is not None:
        event = build(EventType.SESSION_DESTROYED, session_id=claims["sid"], **common)
    else:
        event = build(EventType.TOKEN_REVOKED, issued_before=said, **common)
    return cast("SessionDestroyed | TokenRevoked", event)
