"""The position up to which a request wants revocations to be in force: "read your own logout".

A client that was just logged out brings the position of that event (`Receipt.position`). It can only make the guard
stricter, so it needs no signature; and what it makes up costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jwt_events._internal.positions import parse_regional
from jwt_events.errors import InvalidOption
from jwt_events.guard._refusal import Refused
from jwt_events.guard._where import HeaderValues, TokenSource, cookies_named, name_of
from jwt_events.revocation import RevocationList

_OTHERS = ("authorization", "cookie", "host", "proxy-authorization", "set-cookie")


class PositionFrom:
    """Where a request may name a position: the option ``at_least`` of guards.

    ::

        guard = BearerGuard(revocations, decode, at_least=PositionFrom(cookie="logged-out-at"))

    A request that names a position of which this instance has not heard yet waits for it, usually some milliseconds;
    see `RevocationList.wait_for`. If it cannot be shown to be in force within the ``max_staleness`` of the list, the
    request gets 503 and ``Retry-After``, also with ``on_stale="allow"``. One that names none, or leaves it empty, is
    decided about as usual; one that names several waits for the newest of them, of each region. What is no position, or
    names a region that the list does not follow, is a malformed request (400). Only requests with a token that is good
    so far wait.

    Args:
        header: the name of a header; ``None`` for none.
        cookie: the name of a cookie; ``None`` for none.

    Raises:
        InvalidOption: neither is given, or a name that no header or cookie can have.
    """

    def __init__(self, *, header: str | None = None, cookie: str | None = None) -> None:
        if header is None and cookie is None:
            raise InvalidOption("at_least", "needs the name of a header, a cookie, or both")
        self.header: str | None = None if header is None else name_of("header", header).lower()
        if self.header in _OTHERS:
            advice = ": pass cookie= with the name of the cookie" if self.header == "cookie" else ""
            raise InvalidOption("header", f"must be a header that carries a position{advice}")
        self.cookie: str | None = None if cookie is None else name_of("cookie", cookie)

    def __repr__(self) -> str:
        return f"PositionFrom(header={self.header!r}, cookie={self.cookie!r})"

    def find(self, values_of: HeaderValues) -> Sequence[str]:
        """Return the newest position that a request names, of each region.

        Raises:
            ValueError: it names something else.
        """
        newest: dict[str, tuple[tuple[int, int], str]] = {}
        for text in filter(None, self._texts(values_of)):
            if (found := parse_regional(text)) is None:
                raise ValueError("not a position")
            region, key = found
            newest[region] = max(newest.get(region, (key, text)), (key, text))
        return [text for _, text in newest.values()]

    def _texts(self, values_of: HeaderValues) -> Iterator[str]:
        if self.header is not None:
            for value in values_of(self.header):
                yield from (text.strip(" \t") for text in value.split(","))
        if self.cookie is not None:
            yield from cookies_named(self.cookie, values_of("cookie"))


class Awaited:
    """Lets a request wait for the position that it names.

    Args:
        revocations: knows what is in force.
        at_least: where requests name it; ``None`` for nowhere.
        source: where their tokens are.
        realm: the realm of the challenge.

    Raises:
        InvalidOption: ``at_least`` is none of these, or names the place of the token.
    """

    def __init__(
        self, revocations: RevocationList, at_least: PositionFrom | None, source: TokenSource, realm: str | None
    ) -> None:
        if at_least is not None:
            if not isinstance(at_least, PositionFrom):
                raise InvalidOption("at_least", f"must be a PositionFrom, not {type(at_least).__name__}")
            if at_least.header == source.header or (at_least.cookie is not None and at_least.cookie == source.cookie):
                raise InvalidOption("at_least", "must name another header or cookie than that of the token")
        self._revocations = revocations
        self._at_least = at_least
        self._realm = realm

    async def wait(self, values_of: HeaderValues) -> bool:
        """Wait if need be; return whether it had to, after which the token must be verified again.

        Raises:
            Refused: what the request names is no position, or whether that is in force is not known.
        """
        if self._at_least is None:
            return False
        try:
            positions = self._at_least.find(values_of)
            missing = [position for position in positions if not self._revocations.has_applied(position)]
        except ValueError:  # also of a region that the list does not follow
            raise Refused("invalid_position", realm=self._realm) from None
        for position in missing:
            if not await self._revocations.wait_for(position):
                raise Refused("stale_revocations")
        return bool(missing)
