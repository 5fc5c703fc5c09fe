"""The door to aiohttp: requests to a transmitter, with bounds on time and size, and without redirects.

A redirect would send the authorization to another address, and a compressed answer can be much larger than what came
over the network; neither is accepted. Messages of errors name no address, which may hold a secret.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import urlsplit

from jwt_events._internal.cancellation import timeout
from jwt_events._internal.functions import awaited, function
from jwt_events.errors import Closed, InvalidOption, TransmitterError, TransmitterRefused

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

SentAuthorization: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""The value of the ``Authorization`` header, or a function, plain or async, that returns it, asked for each request."""

_MAX_AUTHORIZATION = 8_192
_MAX_RETRY_AFTER = 3_600.0
_AGAIN = frozenset({408, 425, 429})  # what a later request may be spared


class HttpClient:
    """Sends requests to a transmitter; an async context manager.

    Args:
        owner: the class that needs it, for the message if aiohttp is missing.
        authorization: the value of the ``Authorization`` header, or a function that returns it.
        ssl_context: verifies the server; ``None`` for the authorities of this machine.
    """

    def __init__(self, owner: str, authorization: SentAuthorization | None, ssl_context: ssl.SSLContext | None) -> None:
        if isinstance(authorization, str):
            _check_authorization(authorization)
        elif authorization is not None:
            function("authorization", authorization)
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise InvalidOption("ssl_context", f"must be an ssl.SSLContext, not {type(ssl_context).__name__}")
        _require_aiohttp(owner)
        self._authorization = authorization
        self._ssl_context = ssl_context
        self._session: ClientSession | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        import aiohttp  # noqa: PLC0415 - an extra

        connector = aiohttp.TCPConnector(ssl=True if self._ssl_context is None else self._ssl_context)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each request has a deadline of its own
            auto_decompress=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "jwt_events"},
        )
        self._session = await self._resources.enter_async_context(session)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session = None
        await self._resources.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        within: float,
        max_bytes: int,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send a request and return the status and body of an answer of success.

        Args:
            method: the HTTP method.
            url: the address; must have passed `address`.
            within: seconds for all of it.
            max_bytes: the largest body of an answer; a larger one is not read.
            body: is sent as JSON.
            query: parameters of the query.

        Raises:
            TransmitterError: there is no answer, or one that is no success.
        """
        if self._session is None:
            raise Closed("use it inside `async with`")
        headers = {} if body is None else {"Content-Type": "application/json"}
        if (authorization := await self._current_authorization()) is not None:
            headers["Authorization"] = authorization
        content = None if body is None else json.dumps(body).encode()
        try:
            async with (
                timeout(within),
                self._session.request(
                    method, url, data=content, params=query, headers=headers, allow_redirects=False
                ) as response,
            ):
                _check_status(response)
                return response.status, await _read(response, max_bytes)
        except TransmitterError:
            raise
        except TimeoutError:
            raise TransmitterError(f"the transmitter did not answer within {within:g} s") from None
        except Exception as error:  # noqa: BLE001 - what aiohttp raises may quote the address, which may be secret
            raise TransmitterError(f"the transmitter was not reached: {type(error).__name__}") from None

    async def _current_authorization(self) -> str | None:
        if self._authorization is None or isinstance(self._authorization, str):
            return self._authorization
        return _check_authorization(await awaited("authorization", self._authorization()))


def address(option: str, url: object) -> str:
    """Accept the URL of a transmitter: https, or http to this machine alone.

    Raises:
        InvalidOption: it is not. The message does not repeat it.
    """
    if not isinstance(url, str):
        raise InvalidOption(option, f"must be text, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidOption(option, "is not a URL") from None
    if not url.isascii() or not url.isprintable() or " " in url or not host:
        raise InvalidOption(option, "is not a URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise InvalidOption(option, "must begin with https://: tokens and the authorization are sent to it")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidOption(option, "must have neither a password nor a fragment; pass `authorization`")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_authorization(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidOption("authorization", f"must be text, or return it, not {type(value).__name__}")
    if not value.strip() or len(value) > _MAX_AUTHORIZATION or not value.isascii() or not value.isprintable():
        raise InvalidOption("authorization", f"must be 1 to {_MAX_AUTHORIZATION} printable characters of ASCII")
    return value


def _check_status(response: ClientResponse) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    retry_after = _seconds(response.headers.get("Retry-After"))
    if 300 <= status < 400:
        raise TransmitterRefused("the transmitter redirects, which is not followed; correct the URL", status=status)
    if 400 <= status < 500 and status not in _AGAIN:
        problem = "; look at the authorization" if status in (401, 403) else ""
        raise TransmitterRefused(f"the transmitter answered {status}{problem}", status=status, retry_after=retry_after)
    raise TransmitterError(f"the transmitter answered {status}", status=status, retry_after=retry_after)


async def _read(response: ClientResponse, max_bytes: int) -> bytes:
    status = response.status
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TransmitterError("the transmitter sent a compressed answer, which was not asked for", status=status)
    too_large = TransmitterError(f"the answer of the transmitter is larger than {max_bytes} bytes", status=status)
    if (response.content_length or 0) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _seconds(value: str | None) -> float | None:
    """Parse ``Retry-After`` (RFC 9110 §10.2.3), seconds or a date, up to an hour."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)


def _require_aiohttp(owner: str) -> None:
    try:
        import aiohttp  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            f"jwt_events.signals.{owner} needs aiohttp; get it from a clone: pip install '.[signals]'"
        ) from error
