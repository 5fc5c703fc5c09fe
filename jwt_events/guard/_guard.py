"""`Guard`: from the Authorization header of a request to verified, unrevoked claims, or to a refusal.

It is independent of web frameworks; the modules for single frameworks send clients exactly what it decides.

Sources: RFC 6750 §2.1 (bearer tokens), RFC 9110 §11.1 (schemes are case-insensitive), RFC 7515 §4.1.4 (``kid``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Unpack, cast, overload

from jwt_events._internal import options
from jwt_events._internal.functions import awaited, cancelled_elsewhere, function
from jwt_events.errors import InvalidClaims, InvalidOption
from jwt_events.guard._admissions import Admission, Admissions, T_co, may_have_expired
from jwt_events.guard._connection import Connections
from jwt_events.guard._failures import Failures
from jwt_events.guard._kids import header_kid, with_kids
from jwt_events.guard._parameters import GuardOptions, M, ModelOptions, OptionalGuardOptions, OptionalModelOptions, V
from jwt_events.guard._position import Awaited, PositionFrom
from jwt_events.guard._refusal import Refused
from jwt_events.guard._requirement import requirement_of
from jwt_events.guard._where import AmbiguousToken, HeaderValues, TokenSource, values_in
from jwt_events.revocation import RevocationList

# RFC 6750 §2.1, with padding before a dot, too: tokens of AWS load balancers have it.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+(?:={1,2}\.[A-Za-z0-9._~+/-]+)*=*")

_NO_CLAIMS: Mapping[str, object] = MappingProxyType({})


def _identity(value: Any) -> Any:
    return value


class Guard(Generic[T_co]):
    """Lets requests in whose bearer token is valid and not revoked, and refuses all others.

    The base of the guards for web frameworks; use it directly in a framework without a module here::

        guard = Guard(revocations, decode)
        try:
            admission = await guard.admit(request.headers.getlist("authorization"))
        except Refused as refused:
            return Response(refused.status, refused.headers, refused.body)

    Args:
        revocations: decides which tokens are revoked. It must be open while requests come in.
        decode: takes the token, verifies its signature, ``exp``, ``aud`` and all else that matters, and returns its
            claims. A plain function is called on the event loop, where verifying a signature takes microseconds, and
            must not block; or a coroutine function. Every exception that it raises, ``None`` and claims that are empty
            mean that the token is not valid (401), but for `Unavailable`, the errors of a transport, `OSError`, which
            includes `TimeoutError`, the cancellation of what it waits for, and the errors by which PyJWT, httpx,
            aiohttp, requests and redis-py say that a service cannot be reached, also as the cause of another one (503).
            A reply of 400 to 499 is the service's verdict about the token (401). Exceptions that look like a mistake in
            the program are logged as errors. A token of three parts or more whose header is not one JSON object that
            all parsers read alike is refused before (401).
        claims_of: takes the return value of ``decode`` and returns the claims in it, if that is not a mapping: for a
            model, ``lambda user: {"sub": user.id, "iat": user.issued_at}``; or a coroutine function. A token cannot be
            revoked by a claim that is left out, which is logged once if it seems to be a mistake, and without ``iat``
            it is covered by every cutoff. A ``kid`` that it or ``decode`` returns is checked beside that of the header.
        realm: the realm of the challenge (RFC 9110 §11.5); ``None`` leaves it out.
        max_token_bytes: a longer token is refused unread.
        optional: let requests without a token in, too, as anonymous: their value is ``None``. A token that is not valid
            is refused all the same.
        cookie: the name of a cookie that may carry the token instead of the header; ``None`` for none. A request with a
            token in both is refused (400). Browsers send cookies with requests of other sites, too: see the recipes
            about CSRF.
        header: the header that carries the token, if a proxy puts it into another one than ``Authorization``; the
            scheme ``Bearer`` may be left out there.
        until_expiry: whether WebSockets and streams end with their token's ``exp``, to which the ``leeway`` of the
            list is added; one that is no number is refused. ``False`` ends them by revocation alone.
        at_least: where a request may name the position up to which revocations must be in force before it is let in;
            ``None`` for nowhere.

    Raises:
        InvalidOption: an option cannot work.
    """

    @overload
    def __init__(
        self: Guard[M],
        revocations: RevocationList,
        decode: Callable[[str], M | Awaitable[M | None] | None],
        **options: Unpack[GuardOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[V],
        revocations: RevocationList,
        decode: Callable[[str], Awaitable[V | None]],
        **options: Unpack[ModelOptions[V]],
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[V],
        revocations: RevocationList,
        decode: Callable[[str], V | None],
        **options: Unpack[ModelOptions[V]],
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[M | None],
        revocations: RevocationList,
        decode: Callable[[str], M | Awaitable[M | None] | None],
        **options: Unpack[OptionalGuardOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[V | None],
        revocations: RevocationList,
        decode: Callable[[str], Awaitable[V | None]],
        **options: Unpack[OptionalModelOptions[V]],
    ) -> None: ...
    @overload
    def __init__(
        self: Guard[V | None],
        revocations: RevocationList,
        decode: Callable[[str], V | None],
        **options: Unpack[OptionalModelOptions[V]],
    ) -> None: ...

    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], Any],
        *,
        claims_of: Callable[[Any], Any] = _identity,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
        optional: bool = False,
        cookie: str | None = None,
        header: str = "Authorization",
        until_expiry: bool = True,
        at_least: PositionFrom | None = None,
    ) -> None:
        if not isinstance(revocations, RevocationList):
            raise InvalidOption("revocations", f"must be a RevocationList, not {type(revocations).__name__}")
        if realm is not None and (not options.name("realm", realm).isascii() or re.search(r'["\\]', realm)):
            raise InvalidOption("realm", "must be ASCII, without quotes and backslashes")
        self.revocations = revocations
        self._decode = function("decode", decode)
        self._claims_of = function("claims_of", claims_of)
        self._realm = realm
        self._failures = Failures(revocations, realm)
        self._max_token_bytes = options.count("max_token_bytes", max_token_bytes)
        self._optional = options.flag("optional", optional)
        self._source = TokenSource(header, cookie)
        self._position = Awaited(revocations, at_least, self._source, realm)
        self._connections: Connections[T_co] = Connections(
            revocations, self.admit_token, self._refusal, until_expiry=options.flag("until_expiry", until_expiry)
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.revocations!r}>"

    async def admit(
        self,
        authorization: Sequence[str | None] | None,
        *,
        cookie: Sequence[str | None] | None = (),
        scopes: Sequence[str] = (),
        at_least: Sequence[str | None] | None = (),
    ) -> Admission[T_co]:
        """Let a request in, or raise. Cancelling is safe.

        Args:
            authorization: the values of all its ``Authorization`` headers, or of those that the option ``header``
                names; there should be one. Text is one value, and ``None`` no header.
            cookie: the values of all its ``Cookie`` headers, which are read if a cookie is among the options.
            scopes: what the token must grant, in its claim ``scope`` or ``scp``.
            at_least: the values of all headers that the option ``at_least`` names.

        Raises:
            Refused: the request is not let in.
            InvalidOption: ``scopes`` has something that no token can grant; or a value is not text.
        """
        requirement = requirement_of(scopes)
        headers = {"cookie": values_in("cookie", cookie)}
        headers[self._source.header] = values_in("authorization", authorization)
        positions = values_in("at_least", at_least)
        admissions: Admissions[T_co] = Admissions()
        admission = await self._admit_again(admissions, lambda name: headers.get(name, positions), None, verify=True)
        return requirement.met_by(admission, realm=self._realm)

    async def admit_token(self, token: str | None) -> Admission[T_co]:
        """Let a request in by a token that did not come in the ``Authorization`` header, or raise.

        Args:
            token: the token; ``None`` if there is none.

        Raises:
            Refused: as in `admit`.
        """
        if token is None:
            if self._optional:
                return Admission(cast("T_co", None), _NO_CLAIMS, is_anonymous=True)
            raise Refused("missing_token", realm=self._realm)
        if not isinstance(token, str):
            self._failures.tell("ERROR", "token refused, it is not text", problem=type(token).__name__)
            raise Refused("invalid_request", realm=self._realm)
        if len(token) > self._max_token_bytes or _TOKEN.fullmatch(token) is None:
            raise Refused("invalid_request", realm=self._realm)
        try:
            kid, problem = header_kid(token)  # before anything else parses the header
            value: T_co = _returned("decode", await awaited("decode", self._decode(token)))
            bare = _returned("claims_of", await awaited("claims_of", self._claims_of(value)))
            claims = with_kids(bare, value, kid)
            self._connections.ensure_live(claims)
            if problem is not None:
                raise problem  # noqa: TRY301 - last, as all others say more about the refusal
        except asyncio.CancelledError as error:  # the functions may be plain ones, which look at what others wait for
            refused = self._refusal(cancelled_elsewhere("decode", error))
        except Exception as error:  # noqa: BLE001 - after any exception the token is not verified
            refused = self._refusal(error)
        else:
            self._failures.report_missing(claims)
            return Admission(value, claims)
        raise refused  # outside of the handler: the error, which may quote the token, must not become its context

    async def _token_from(
        self,
        source: Callable[[Any], object] | None,
        connection: object,
        *,
        values_of: HeaderValues,
        admissions: Admissions[T_co],
    ) -> Any:
        """Return the token that another source than the headers has for a connection.

        ``None`` if there is no such source, or the headers have a token, good or bad: it may be one of a proxy.

        Raises:
            Refused: the source failed.
        """
        if source is None or self._source.is_used(values_of):
            return None
        try:
            return await admissions.find_elsewhere(source, connection)
        except Exception as error:  # noqa: BLE001 - without a token the connection is refused
            refused = self._refusal(error)
        raise refused

    async def _admit_again(
        self, admissions: Admissions[T_co], values_of: HeaderValues, token: str | None, *, verify: bool
    ) -> Admission[T_co]:
        """Let a request in that may have been let in before; if it was, check again what can have changed.

        Args:
            admissions: those of the request so far.
            values_of: returns the values of its headers.
            token: one that did not come in a header; ``None`` looks into the headers, unless a renewed one is there.
            verify: call ``decode`` again for a token that was let in before, whatever its ``exp``.

        Raises:
            Refused: as in `admit`.
        """
        is_own = token is None
        if token is None:
            token = self._token_in(values_of) if admissions.renewed is None else admissions.renewed
        known = admissions.find(token) if isinstance(token, str) else None
        if known is None or verify or may_have_expired(known):
            known = await self.admit_token(token)
        else:
            self._connections.ensure_still_live(known)
        if not known.is_anonymous and not admissions.is_current:
            if await self._position.wait(values_of):
                known = await self.admit_token(token)
            admissions.is_current = True
        admissions.keep(token, known, is_own=is_own)
        return known

    def _is_response(self, error: Exception) -> bool:
        """Return whether an error of ``decode`` is a response of the web framework that refuses the request."""
        return False

    def _token_in(self, values_of: HeaderValues) -> str | None:
        try:
            return self._source.find(values_of)
        except AmbiguousToken:
            raise Refused("invalid_request", realm=self._realm) from None

    def _refusal(self, error: Exception) -> Exception:
        """Return what to raise for an error that a function of the application, or the list, raised."""
        return error if isinstance(error, Refused) or self._is_response(error) else self._failures.refusal(error)


def _returned(option: str, value: Any) -> Any:
    """Return what a function of the application returned, unless that says nothing about a token.

    An error that is returned instead of raised is no claims. A response of aiohttp is an empty mapping.

    Raises:
        InvalidClaims: it is ``None``, ``False``, an error, or a mapping without any claim.
    """
    if value is None or value is False or isinstance(value, BaseException):
        raise InvalidClaims("claims", f"are missing: {option} must return them, or raise an error")
    if isinstance(value, Mapping) and not len(value):
        raise InvalidClaims("claims", f"are empty: {option} must return those of the token, or raise an error")
    return value
