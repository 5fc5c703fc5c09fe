"""HTTP endpoints that receive signals, for every framework: a request in, a response out, and events published between.

Size, rate, authorization and content type are checked before anything is parsed. A success is reported only after the
server has accepted the events.

Sources: OpenID Connect Back-Channel Logout 1.0 §2.5, §2.8; RFC 8935 §2; SSF 1.0 §8.1.4.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.cancellation import timeout
from jwt_events._internal.describing import describe
from jwt_events._internal.functions import awaited, function, truth
from jwt_events.errors import (
    Closed,
    InvalidEvent,
    InvalidOption,
    PublishError,
    SignalRefused,
    TransportError,
    Unavailable,
)
from jwt_events.events import Event
from jwt_events.instrumentation import Instrumentation, SignalObserver, SignalOutcome, instrumentation
from jwt_events.publisher import Publisher
from jwt_events.signals._logout import LogoutTokens
from jwt_events.signals._rate import RateLimit
from jwt_events.signals._security import Received, SecurityEvents
from jwt_events.signals._token import MAX_TOKEN_BYTES, refused

_MAX_BODY = MAX_TOKEN_BYTES + 4_096
_MAX_FIELDS = 16
_BODY_TIMEOUT = 10.0  # seconds for a client to send its body
_RETRY_AFTER = "1"

UNVERIFIED = "unverified"
"""Label for requests that were refused before it was clear what they are."""

Authorization: TypeAlias = "str | Callable[[str], bool | Awaitable[bool]]"
"""The value that the ``Authorization`` header must have, or a function that returns whether it is right."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: the status code.
        body: JSON, or nothing.
        headers: the headers, without the length.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Rejected(Exception):
    """Raised for a request that is rejected before its token is read."""

    def __init__(self, status: int, err: str, description: str, **headers: str) -> None:
        super().__init__(description)
        self.response = (status, err, description, headers)


class Endpoint:
    """What the two endpoints have in common: the order of checks, and what is replied.

    Subclasses say which content type they take, how the token is found in the body, and what it becomes.
    """

    content_type: str
    success: int
    error_member: str
    description_member: str
    unavailable: int

    def __init__(
        self,
        publisher: Publisher,
        issuer: str,
        *,
        authorization: Authorization | None = None,
        rate: float = 500.0,
        metrics: Instrumentation | None = None,
    ) -> None:
        if not hasattr(publisher, "publish_many"):
            raise InvalidOption("publisher", f"must be a Publisher, not {type(publisher).__name__}")
        self._publisher = publisher
        if isinstance(authorization, str):
            options.name("authorization", authorization, maximum=4_096)
        elif authorization is not None:
            function("authorization", authorization)
        self._authorization = authorization
        self._rate = RateLimit(options.seconds("rate", rate))
        found = instrumentation(metrics)
        self._observer = SignalObserver() if found is None else found.signals(issuer)

    async def respond(self, method: str, headers: Iterable[tuple[str, str]], body: AsyncIterable[bytes]) -> Response:
        """Handle a request and return the response.

        Cancelling is safe: the sender gets no success, and sends the signal again.

        Args:
            method: the HTTP method.
            headers: all headers, names in any case.
            body: the chunks of the body; it is read only as far as the limit.
        """
        try:
            token = await self._token(method, list(headers), body)
            await self._receive(token)
        except _Rejected as rejected:
            status, err, description, extra = rejected.response
            self._observer.received(UNVERIFIED, SignalOutcome.REFUSED)
            return self._error(status, err, description, **extra)
        except SignalRefused as error:
            self._observer.received(UNVERIFIED, SignalOutcome.REFUSED)
            logger.info("signal refused", reason=error.err, problem=error.description)
            return self._error(400, error.err, error.description)
        except InvalidEvent:
            self._observer.received(UNVERIFIED, SignalOutcome.REFUSED)
            return self._error(400, "invalid_request", "the event that it stands for cannot be published")
        except (Closed, PublishError, TransportError, Unavailable) as error:
            self._observer.received(UNVERIFIED, SignalOutcome.FAILED)
            logger.warning("signal not published", error=describe(error))
            problem = "not possible at the moment; send it again"
            return self._error(self.unavailable, "temporarily_unavailable", problem, **{"Retry-After": _RETRY_AFTER})
        except Exception as error:  # noqa: BLE001 - of a function of the application: the sender is told, and retries
            self._observer.received(UNVERIFIED, SignalOutcome.FAILED)
            logger.error("signal failed", error=describe(error))
            return self._error(500, "server_error", "the receiver failed")
        return Response(self.success, headers={"Cache-Control": "no-store"})

    async def _token(self, method: str, headers: Sequence[tuple[str, str]], body: AsyncIterable[bytes]) -> str:
        """Return the token in a request, after every check that needs no parser."""
        if method != "POST":
            raise _Rejected(405, "invalid_request", "the method must be POST", Allow="POST")
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        if isinstance(self._authorization, str):  # costs nothing, so that strangers do not use up the rate
            await self._check_authorization(found.get("authorization", []))
        if not self._rate.admit(time.monotonic()):
            raise _Rejected(429, "invalid_request", "too many requests", **{"Retry-After": _RETRY_AFTER})
        if not isinstance(self._authorization, str):
            await self._check_authorization(found.get("authorization", []))
        kinds = [kind.partition(";")[0].strip().lower() for kind in found.get("content-type", [])]
        if kinds != [self.content_type]:
            raise refused(f"the content type must be {self.content_type}")
        if any(not length.isascii() or not length.isdigit() for length in found.get("content-length", [])):
            raise refused("Content-Length is not a number")
        if any(len(length) > 9 or int(length) > _MAX_BODY for length in found.get("content-length", [])):
            raise _Rejected(413, "invalid_request", f"the body is larger than {_MAX_BODY} bytes")
        return self._find_token(await _read(body))

    async def _check_authorization(self, values: list[str]) -> None:
        if self._authorization is None:
            return
        given = values[0] if len(values) == 1 else ""
        if isinstance(self._authorization, str):
            is_right = hmac.compare_digest(given.encode("utf-8", "replace"), self._authorization.encode())
        else:
            result = await awaited("authorization", self._authorization(given))
            is_right = bool(given) and truth("authorization", result)
        if not is_right:
            problem = "the Authorization header is missing or not the right one"
            raise _Rejected(401, "authentication_failed", problem, **{"WWW-Authenticate": "Bearer"})

    def _error(self, status: int, err: str, description: str, **headers: str) -> Response:
        body = {self.error_member: err, self.description_member: description}
        common = {"Cache-Control": "no-store", "Content-Type": "application/json", "Content-Language": "en"}
        return Response(status, json.dumps(body).encode(), common | headers)

    def _find_token(self, body: bytes) -> str:
        raise NotImplementedError

    async def _receive(self, token: str) -> None:
        raise NotImplementedError

    async def _publish(self, kind: str, events: Sequence[Event]) -> None:
        """Publish the events; return when the server has accepted all of them."""
        await self._publisher.publish_many(events)
        self._observer.received(kind, SignalOutcome.PUBLISHED)
        now = time.time()
        for event in events:
            self._observer.in_force(now - event.occurred_at.timestamp())


class LogoutEndpoint(Endpoint):
    """Receives logout tokens: a form with ``logout_token``; 200, or 400 with JSON."""

    content_type = "application/x-www-form-urlencoded"
    success = 200
    error_member = "error"
    description_member = "error_description"
    unavailable = 400  # "If the logout request is invalid or the logout failed, the RP MUST respond with HTTP 400"

    def __init__(self, publisher: Publisher, tokens: LogoutTokens, **options: Any) -> None:
        if not isinstance(tokens, LogoutTokens):
            raise InvalidOption("tokens", f"must be LogoutTokens, not {type(tokens).__name__}")
        super().__init__(publisher, tokens.issuer, **options)
        self._tokens = tokens

    def _find_token(self, body: bytes) -> str:
        try:
            fields = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
            )
        except ValueError:
            raise refused("the body is not a form") from None
        found = [value for name, value in fields if name == "logout_token"]
        if len(found) != 1:
            raise refused("the form must have logout_token once")
        return found[0]

    async def _receive(self, token: str) -> None:
        await self._publish("logout", [await self._tokens.event(token)])


class SetEndpoint(Endpoint):
    """Receives security event tokens that are pushed: 202, or 400 with JSON."""

    content_type = "application/secevent+jwt"
    success = 202
    error_member = "err"
    description_member = "description"
    unavailable = 503

    def __init__(
        self,
        publisher: Publisher,
        events: SecurityEvents,
        *,
        verification: Callable[[str], bool | Awaitable[bool]] | None = None,
        on_status: Callable[[str], object] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(events, SecurityEvents):
            raise InvalidOption("events", f"must be SecurityEvents, not {type(events).__name__}")
        super().__init__(publisher, events.issuer, **options)
        self._events = events
        self._verification = None if verification is None else function("verification", verification)
        self._on_status = None if on_status is None else function("on_status", on_status)

    def _find_token(self, body: bytes) -> str:
        try:
            return body.decode("ascii").strip()
        except UnicodeDecodeError:
            raise refused("the body is not a token") from None

    async def _receive(self, token: str) -> None:
        received = await self._events.receive(token)
        if received.events:
            await self._publish(received.kind, received.events)
        else:
            await self._note(received)
            self._observer.received(received.kind, SignalOutcome.IGNORED)

    async def _note(self, received: Received) -> None:
        """Take note of an event about the stream."""
        if received.verification and received.state is not None:
            expected = self._verification
            if expected is None or not truth("verification", await awaited("verification", expected(received.state))):
                raise SignalRefused("invalid_state", "the state of the verification event was not expected")
        if received.status is not None:
            logger.warning("stream of signals updated", state=received.status)
            if self._on_status is not None:
                await awaited("on_status", self._on_status(received.status))


async def _read(chunks: AsyncIterable[bytes]) -> bytes:
    body = bytearray()
    try:
        async with timeout(_BODY_TIMEOUT):
            async for chunk in chunks:
                body += chunk
                if len(body) > _MAX_BODY:
                    break
    except TimeoutError:
        raise _Rejected(408, "invalid_request", "the body did not come in time") from None
    except Exception as error:  # each framework has an error of its own for a client that left
        raise _Rejected(400, "invalid_request", "the body is not complete") from error
    if len(body) > _MAX_BODY:
        raise _Rejected(413, "invalid_request", f"the body is larger than {_MAX_BODY} bytes")
    return bytes(body)
