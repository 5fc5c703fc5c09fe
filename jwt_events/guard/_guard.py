"""`Guard`: from the Authorization header of a request to verified, unrevoked claims, or to a refusal.

It is independent of web frameworks; the modules for single frameworks send clients exactly what it decides.

Sources: RFC 6750 §2.1 (bearer tokens), RFC 9110 §11.1 (schemes are case-insensitive), RFC 7515 §4.1.4 (``kid``).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.describing import describe
from jwt_events._internal.functions import awaited, function, truth
from jwt_events._internal.notices import Notices
from jwt_events.errors import (
    Closed,
    InvalidClaims,
    InvalidOption,
    RevokedTokenError,
    StaleRevocationsError,
    TransportError,
    Unavailable,
)
from jwt_events.guard._admissions import Admission, Admissions, T, may_have_expired
from jwt_events.guard._header import HeaderTooLarge, UnreadableHeader, kid_of
from jwt_events.guard._overdue import OverdueClose
from jwt_events.guard._reach import missing_claims
from jwt_events.guard._refusal import Refused
from jwt_events.guard._unreachable import is_unreachable
from jwt_events.revocation import KeyedClaims, RevocationList, ViewState

Item = TypeVar("Item")

# RFC 6750 §2.1, with padding before a dot, too: tokens of AWS load balancers have it.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+(?:={1,2}\.[A-Za-z0-9._~+/-]+)*=*")

# Errors of the program, not of the token. KeyError is left out: that is how a look-up of a `kid` may fail.
_BUGS = (ArithmeticError, AssertionError, AttributeError, ImportError, NameError, RuntimeError, TypeError)

_NOT_OPEN = "every token is refused: the revocation list is not open"
_HOW_TO_OPEN = (
    "pass lifespan=lifespan(revocations) to FastAPI, app.cleanup_ctx.append(lifespan(revocations)) in aiohttp,"
    " or use `async with revocations`"
)


def _identity(value: Any) -> Any:
    return value


class Guard(Generic[T]):
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
            must not block; or a coroutine function. Every exception that it raises, and ``None``, means that the token
            is not valid (401), except for `Unavailable`, the errors of a transport, `OSError`, which includes
            `TimeoutError`, and the errors by which PyJWT, httpx, aiohttp, requests and redis-py say that a service
            cannot be reached, also as the cause of another one (503). A reply of 400 to 499 is the service's verdict
            about the token (401). Exceptions that look like a mistake in the program are logged as errors. A token of
            three parts or more whose header is not one JSON object that all parsers read alike is refused before (401).
        claims_of: takes the return value of ``decode`` and returns the claims in it, if that is not a mapping: for a
            model, ``lambda user: {"sub": user.id, "iat": user.issued_at}``; or a coroutine function. A token cannot be
            revoked by a claim that is left out, which is logged once if it seems to be a mistake, and without ``iat``
            it is covered by every cutoff. A ``kid`` that it or ``decode`` returns is checked beside that of the header.
        realm: the realm of the challenge (RFC 9110 §11.5); ``None`` leaves it out.
        max_token_bytes: a longer token is refused unread.

    Raises:
        InvalidOption: an option cannot work.
    """

    @overload
    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], Awaitable[T]],
        *,
        claims_of: Callable[[T], Mapping[str, object] | Awaitable[Mapping[str, object]]] = ...,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None: ...

    @overload
    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], T],
        *,
        claims_of: Callable[[T], Mapping[str, object] | Awaitable[Mapping[str, object]]] = ...,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None: ...

    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], T | Awaitable[T]],
        *,
        claims_of: Callable[[T], Mapping[str, object] | Awaitable[Mapping[str, object]]] = _identity,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None:
        if not isinstance(revocations, RevocationList):
            raise InvalidOption("revocations", f"must be a RevocationList, not {type(revocations).__name__}")
        if realm is not None and (not options.name("realm", realm).isascii() or re.search(r'["\\]', realm)):
            raise InvalidOption("realm", "must be ASCII, without quotes and backslashes")
        self.revocations = revocations
        self._decode = function("decode", decode)
        self._claims_of = function("claims_of", claims_of)
        self._realm = realm
        self._notices = Notices()
        self._has_told = False  # that the list is not open
        self._max_token_bytes = options.count("max_token_bytes", max_token_bytes)
        self._reported: set[tuple[str, ...]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.revocations!r}>"

    async def admit(self, authorization: Sequence[str]) -> Admission[T]:
        """Let a request in, or raise. Cancelling is safe.

        Args:
            authorization: the values of all its ``Authorization`` headers; there should be one. Text is one value.

        Raises:
            Refused: the request is not let in.
        """
        values = [authorization] if isinstance(authorization, str) else authorization
        return await self.admit_token(self._extract_token(values))

    async def admit_token(self, token: str | None) -> Admission[T]:
        """Let a request in by a token that did not come in the ``Authorization`` header, or raise.

        Args:
            token: the token; ``None`` if there is none.

        Raises:
            Refused: as in `admit`.
        """
        if token is None:
            raise Refused("missing_token", realm=self._realm)
        if not isinstance(token, str):
            self._tell("ERROR", "token refused, it is not text", problem=type(token).__name__)
            raise Refused("invalid_request", realm=self._realm)
        if len(token) > self._max_token_bytes or _TOKEN.fullmatch(token) is None:
            raise Refused("invalid_request", realm=self._realm)
        try:
            kid, problem = _kid_of(token)  # before anything else parses the header
            value: T = _verified(await awaited("decode", self._decode(token)))
            claims = _with_kids(await awaited("claims_of", self._claims_of(value)), value, kid)
            self.revocations.ensure_live(claims)
            if problem is not None:
                raise problem  # noqa: TRY301 - last, as all others say more about the refusal
        except Exception as error:  # noqa: BLE001 - after any exception the token is not verified
            refused = self._refusal(error)
        else:
            self._report_missing(claims)
            return Admission(value, claims)
        raise refused  # outside of the handler: the error, which may quote the token, must not become its context

    async def _token_from(
        self,
        source: Callable[[Any], object] | None,
        connection: object,
        *,
        authorization: Sequence[str],
        admissions: Admissions[T],
    ) -> Any:
        """Return the token that another source than the ``Authorization`` header has for a connection.

        Returns:
            ``None`` if there is no such source, or a bearer token in the header. A proxy may have put other credentials
            there.

        Raises:
            Refused: the source failed.
        """
        if source is None or any(_is_bearer(value) for value in authorization):
            return None
        if source not in admissions.sourced:
            try:
                admissions.sourced[source] = await awaited("token", source(connection))
            except Exception as error:  # noqa: BLE001 - without a token the connection is refused
                refused = self._refusal(error)
            else:
                return admissions.sourced[source]
            raise refused
        return admissions.sourced[source]

    async def _is_true(self, is_public: Callable[[Any], object], connection: object) -> bool:
        """Return whether a predicate says that a request needs no token; not if it fails."""
        try:
            return truth("is_public", await awaited("is_public", is_public(connection)))
        except InvalidOption as error:
            self._tell("ERROR", "request needs a token, is_public failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - of the application; the guard still decides about the request
            self._tell("ERROR", "request needs a token, is_public failed", error=describe(error))
        return False

    async def _admit_again(
        self, admissions: Admissions[T], authorization: Sequence[str], token: str | None, *, verify: bool
    ) -> Admission[T]:
        """Let a request in that may have been let in before; if it was, check again what can have changed.

        Args:
            admissions: those of the request so far.
            authorization: as in `admit`.
            token: a token that did not come in the header; ``None`` looks into the header.
            verify: call ``decode`` again for a token that was let in before, whatever its ``exp``.

        Raises:
            Refused: as in `admit`.
        """
        is_own = token is None
        if token is None:
            token = self._extract_token(authorization)
        known = admissions.find(token) if isinstance(token, str) else None
        if known is None or verify or may_have_expired(known):
            known = await self.admit_token(token)
        else:
            self._ensure_live(known)
        admissions.keep(token, known, is_own=is_own)
        return known

    def _ensure_live(self, admission: Admission[T]) -> None:
        try:
            self.revocations.ensure_live(admission.claims)
        except Exception as error:  # noqa: BLE001 - whatever it is, the token is not live
            refused = self._refusal(error)
        else:
            return
        raise refused

    def _tell(self, level: str, message: str, **fields: object) -> None:
        """Write a line to the log; what it says is seen once even if the logs are off."""
        self._notices.tell(level, message, once=(message, *fields.values()), **fields)

    def _report_missing(self, claims: Mapping[str, object]) -> None:
        """Warn, once for the same claims, of tokens that are let in and that no revocation will reach."""
        missing = missing_claims(claims, self.revocations.claim_names)
        if missing and missing not in self._reported:
            self._reported.add(missing)
            self._tell(
                "WARNING", "token let in that revocations do not reach, claims are missing", claim=", ".join(missing)
            )

    def _is_response(self, error: Exception) -> bool:
        """Return whether an error of ``decode`` is a response of the web framework that refuses the request."""
        return False

    def _extract_token(self, authorization: Sequence[str]) -> str:
        if len(authorization) > 1:
            raise Refused("invalid_request", realm=self._realm)
        if not authorization or not _is_bearer(authorization[0]):
            raise Refused("missing_token", realm=self._realm)
        return authorization[0].strip(" ").partition(" ")[2].strip(" ")

    def _refusal(self, error: Exception) -> Exception:
        match error:
            case _ if isinstance(error, Refused) or self._is_response(error):
                return error
            case RevokedTokenError():
                return Refused("revoked_token", realm=self._realm)
            case StaleRevocationsError():
                if self.revocations.state is ViewState.CLOSED and not self._has_told:
                    self._has_told = True
                    self._tell("ERROR", _NOT_OPEN, problem=_HOW_TO_OPEN)
                return Refused("stale_revocations", retry_after=error.retry_after)
            case Unavailable():
                self._tell("WARNING", "token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable", retry_after=error.retry_after)
            case _ if isinstance(error, TransportError | Closed) or is_unreachable(error):
                self._tell("ERROR", "token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable")
            case InvalidClaims():
                self._tell("ERROR", "valid token refused, its claims cannot be checked", claim=error.claim)
            case InvalidOption():
                self._tell("ERROR", "token refused, verifying it failed", error=str(error))
            case _ if isinstance(error, _BUGS):
                self._tell("ERROR", "token refused, verifying it failed", error=describe(error))
            case _:
                logger.debug("token refused", error=describe(error))
        return Refused("invalid_token", realm=self._realm)


def _kid_of(token: str) -> tuple[str | None, UnreadableHeader | None]:
    """Return the ``kid`` of a token, and what is wrong with its header if it cannot be read.

    Raises:
        HeaderTooLarge: the token must not be given to ``decode``.
    """
    try:
        return kid_of(token), None
    except HeaderTooLarge:
        raise
    except UnreadableHeader as error:
        return None, error


def _verified(value: Any) -> Any:
    if value is None or value is False:
        raise InvalidClaims("claims", "are missing: decode must return them, or raise an error")
    return value


def _is_bearer(authorization: str) -> bool:
    return authorization.strip(" ").partition(" ")[0].lower() == "bearer"


def _with_kids(claims: Mapping[str, object], value: object, kid: str | None) -> Mapping[str, object]:
    """Return the claims with all keys that a token may depend on, so that rules about each of them cover it.

    Args:
        claims: may name a ``kid`` of their own: that of a token inside the token, or one with its issuer's name.
        value: the return value of ``decode``; may name another one, or contain the header that it read.
        kid: the one in the token's header.
    """
    if not isinstance(claims, Mapping):
        return claims  # refused by the check, as is a `kid` that is not text
    own = claims.get("kid")
    if own is not None and not isinstance(own, str):
        return claims
    decoded = value if isinstance(value, Mapping) else {}
    header = decoded.get("header", getattr(value, "header", None))
    found = (own, decoded.get("kid"), kid, header.get("kid") if isinstance(header, Mapping) else None)
    kids = list(dict.fromkeys(str.__str__(one) for one in found if isinstance(one, str)))
    if not kids:
        return claims
    named = {**claims, "kid": kids[0]}
    return named if len(kids) == 1 else KeyedClaims(named, tuple(kids[1:]))


async def until_revoked(
    revocations: RevocationList,
    claims: Mapping[str, object],
    items: AsyncIterable[Item],
    *,
    close: Callable[[], object] | None = None,
) -> AsyncGenerator[Item, None]:
    """Yield items until they end or the token is revoked, whichever comes first: for streaming responses.

    On revocation the iterator of the items is cancelled where it waits. It always runs in the task that consumes them.

    Args:
        revocations: reports the revocation; it must be open.
        claims: the claims of the token, with its ``kid``.
        items: what to pass on; an asynchronous generator is closed in the end.
        close: closes the response from outside; a plain or a coroutine function, called if the items do not end within
            a second of the revocation.

    Raises:
        InvalidOption: ``close`` is not a function.
    """
    if close is not None:
        function("close", close)
    iterator = aiter(items)
    try:
        while True:
            try:
                async with (
                    OverdueClose(close) as overdue,
                    revocations.watch(claims, overdue.start, cancel=True),
                ):
                    item = await anext(iterator)
            except (RevokedTokenError, StopAsyncIteration):
                return
            yield item
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
