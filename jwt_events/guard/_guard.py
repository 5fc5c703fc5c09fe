"""`Guard`: from the Authorization header of a request to verified, unrevoked claims, or to a refusal.

It is independent of web frameworks; the modules for single frameworks send clients exactly what it decides.

Sources: RFC 6750 §2.1 (bearer tokens), RFC 9110 §11.1 (schemes are case-insensitive), RFC 7515 §4.1.4 (``kid``).
"""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.callbacks import callback
from jwt_events._internal.notices import Notices
from jwt_events.errors import (
    Closed,
    InvalidClaims,
    InvalidOption,
    RevokedTokenError,
    StaleRevocationsError,
    TransportError,
    Unavailable,
    describe,
)
from jwt_events.guard._overdue import OverdueClose
from jwt_events.guard._refusal import Refused
from jwt_events.revocation import RevocationList, ViewState

T = TypeVar("T")
Item = TypeVar("Item")

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1

# Errors of the program, not of the token. KeyError is left out: that is how a look-up of a `kid` may fail.
_BUGS = (ArithmeticError, AssertionError, AttributeError, ImportError, NameError, RuntimeError, TypeError)

_NOT_OPEN = "every token is refused: the revocation list is not open"
_HOW_TO_OPEN = (
    "pass lifespan=lifespan(revocations) to FastAPI, app.cleanup_ctx.append(lifespan(revocations)) in aiohttp,"
    " or use `async with revocations`"
)


@dataclass(frozen=True, slots=True, repr=False)
class Admission(Generic[T]):
    """The result for a request that is let in.

    Attributes:
        value: the return value of ``decode``.
        claims: the claims that were checked, with the ``kid`` of the token's header; pass them to
            `RevocationList.watch`.
    """

    value: T
    claims: Mapping[str, object]


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
            must not block; or a coroutine function. Every exception that it raises means that the token is not valid
            (401), except for `Unavailable`, the errors of a transport, and `OSError`, which includes `TimeoutError`: a
            service that it needs cannot be reached (503). Exceptions that look like a mistake in the program are logged
            as errors.
        claims_of: takes the return value of ``decode`` and returns the claims in it, if that is not a mapping: for a
            model, ``lambda user: {"sub": user.id, "iat": user.issued_at}``. A token cannot be revoked by a claim that
            is left out, and without ``iat`` it is covered by every cutoff.
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
        claims_of: Callable[[T], Mapping[str, object]] = ...,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None: ...

    @overload
    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], T],
        *,
        claims_of: Callable[[T], Mapping[str, object]] = ...,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None: ...

    def __init__(
        self,
        revocations: RevocationList,
        decode: Callable[[str], T | Awaitable[T]],
        *,
        claims_of: Callable[[T], Mapping[str, object]] = _identity,
        realm: str | None = None,
        max_token_bytes: int = 16_384,
    ) -> None:
        if not isinstance(revocations, RevocationList):
            raise InvalidOption("revocations", f"must be a RevocationList, not {type(revocations).__name__}")
        if realm is not None and (not options.name("realm", realm).isascii() or re.search(r'["\\]', realm)):
            raise InvalidOption("realm", "must be ASCII, without quotes and backslashes")
        self.revocations = revocations
        self._decode: Callable[[str], T | Awaitable[T]] = callback("decode", decode)
        self._claims_of: Callable[[T], Mapping[str, object]] = callback("claims_of", claims_of)
        self._realm = realm
        self._notices = Notices()
        self._has_told = False  # that the list is not open
        self._max_token_bytes = options.count("max_token_bytes", max_token_bytes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.revocations!r}>"

    async def admit(self, authorization: Sequence[str]) -> Admission[T]:
        """Let a request in, or raise. Cancelling is safe.

        Args:
            authorization: the values of all its ``Authorization`` headers; there should be one.

        Raises:
            Refused: the request is not let in.
        """
        return await self.admit_token(self._extract_token(authorization))

    async def admit_token(self, token: str) -> Admission[T]:
        """Let a request in by a token that did not come in the ``Authorization`` header, or raise.

        Raises:
            Refused: as in `admit`.
        """
        if len(token) > self._max_token_bytes or _TOKEN.fullmatch(token) is None:
            raise Refused("invalid_request", realm=self._realm)
        try:
            decoded = self._decode(token)
            value: T = await decoded if inspect.isawaitable(decoded) else decoded
            claims = _with_kid(self._claims_of(value), token)
            self.revocations.ensure_live(claims)
        except Exception as error:  # noqa: BLE001 - after any exception the token is not verified
            refused = self._refusal(error)
        else:
            return Admission(value, claims)
        raise refused  # outside of the handler: the error, which may quote the token, must not become its context

    def _extract_token(self, authorization: Sequence[str]) -> str:
        if len(authorization) > 1:
            raise Refused("invalid_request", realm=self._realm)
        scheme, _, token = (authorization[0] if authorization else "").strip(" ").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused("missing_token", realm=self._realm)
        return token.strip(" ")

    def _refusal(self, error: Exception) -> Refused:
        match error:
            case Refused():
                return error
            case RevokedTokenError():
                return Refused("revoked_token", realm=self._realm)
            case StaleRevocationsError():
                if self.revocations.state is ViewState.CLOSED and not self._has_told:
                    self._has_told = True
                    self._notices.tell("ERROR", _NOT_OPEN, once=_NOT_OPEN, problem=_HOW_TO_OPEN)
                return Refused("stale_revocations", retry_after=error.retry_after)
            case Unavailable():
                logger.warning("token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable", retry_after=error.retry_after)
            case TransportError() | Closed() | OSError():
                logger.error("token cannot be verified at the moment", error=describe(error))
                return Refused("unavailable")
            case InvalidClaims():
                logger.error("valid token refused, its claims cannot be checked", claim=error.claim)
            case _ if isinstance(error, _BUGS):
                logger.error("token refused, verifying it failed", error=describe(error))
            case _:
                logger.debug("token refused", error=describe(error))
        return Refused("invalid_token", realm=self._realm)


def _with_kid(claims: Mapping[str, object], token: str) -> Mapping[str, object]:
    """Return the claims with the ``kid`` of the token's header.

    A token that is not a JWT has no ``kid``, and the claims are returned unchanged.
    """
    first = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError):
        return claims
    kid = header.get("kid") if isinstance(header, dict) else None
    return claims if kid is None or not isinstance(claims, Mapping) else {**claims, "kid": kid}


async def until_revoked(
    revocations: RevocationList,
    claims: Mapping[str, object],
    items: AsyncIterable[Item],
    *,
    close: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[Item, None]:
    """Yield items until they end or the token is revoked, whichever comes first: for streaming responses.

    On revocation the iterator of the items is cancelled where it waits. It always runs in the task that consumes them.

    Args:
        revocations: reports the revocation; it must be open.
        claims: the claims of the token, with its ``kid``.
        items: what to pass on; an asynchronous generator is closed in the end.
        close: closes the response from outside; called if the items do not end within a second of the revocation.
    """
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
