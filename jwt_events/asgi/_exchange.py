"""A request or WebSocket that was let in, until it is over, or its token is revoked or expires.

A request that is answered in one go is checked once, when it begins: the endpoint that logs a user out must be able to
say so. What goes on is ended: a response from its first part on, from its status on if its length is not announced, a
WebSocket from the beginning.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from loguru import logger

from jwt_events._internal.cancellation import HostCancellation, timeout
from jwt_events._internal.describing import describe
from jwt_events.asgi._types import App, Message, Receive, Scope, Send
from jwt_events.guard import GRACE, Admission, Connections, Refused, refused_by
from jwt_events.revocation import Watch

_UNFIT = re.compile(rb"[\r\n\0]")

_CLOSE_TIMEOUT = 5.0  # seconds for a client that does not read to take the end


class Exchange:
    """Passes the messages between an application and its server, and stops passing them when the token ends.

    The client is cut off at once, whatever the application does. The application sees that its client has left, and is
    cancelled if it goes on: frameworks that run handlers in tasks of their own end them on the first of these only.

    Args:
        scope: that of the application.
        receive: that of the server.
        send: that of the server.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_websocket: bool = scope["type"] == "websocket"
        self._watch: Watch | None = None
        self._is_revoked = False
        self._is_open = self._is_websocket  # it goes on: it is ended when the token is revoked
        self._is_accepted = False
        self._is_complete = False  # the application has said all, or the client is cut off
        self._length: int | None = None  # bytes of the response that are missing, if their number was announced
        self._host: HostCancellation | None = None
        self._waiting: set[HostCancellation] = set()  # for messages of the client
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def run(self, app: App, connections: Connections[Any], admission: Admission[object]) -> None:
        """Run an application until it ends by itself, or by the end of its token."""
        self._host = HostCancellation()
        failure: BaseException | None = None
        self._watch = connections.watch(admission, self._revoke)
        async with self._watch:
            try:
                await app(self._scope, self._pull, self._push)
            except BaseException as error:  # noqa: BLE001 - raised again below, unless it is the end that was asked for
                failure = error
        if self._timer is not None:
            self._timer.cancel()
        is_interrupted = await self._host.absorb(failure)
        if self._closing is not None:
            await asyncio.wait([self._closing])
        if failure is None or is_interrupted:
            return
        if self._closing is None or not isinstance(failure, Exception):
            raise failure
        logger.debug("application failed when its token was revoked", error=describe(failure))

    async def _pull(self) -> Message:
        if self._closing is None:
            waiting, failure = HostCancellation(), None
            self._waiting.add(waiting)
            try:
                message = await self._receive()
            except BaseException as error:  # noqa: BLE001 - raised again below, unless it is the end of the token
                failure = error
            self._waiting.discard(waiting)
            is_interrupted = await waiting.absorb(failure)
            if failure is not None and not is_interrupted:
                raise failure
            if not waiting.is_requested:
                return message
        if self._is_websocket:
            refused = self._refused
            return {"type": "websocket.disconnect", "code": refused.close_code, "reason": refused.code}
        return {"type": "http.disconnect"}

    async def _push(self, message: Message) -> None:
        if self._closing is not None:
            await asyncio.sleep(0)  # an application that sends without end must not stop the event loop
            return
        kind = message["type"]
        if kind == "websocket.accept":
            self._is_accepted = True
        elif kind == "http.response.start":
            self._length = _length_in(message)
        elif kind == "websocket.close" or (kind.endswith("http.response.body") and not message.get("more_body")):
            self._is_complete = True
        await self._send(message)
        if kind == "http.response.start" and self._length is None:
            self._is_open = True
            if self._is_revoked:  # maybe by the endpoint that is answering now
                self._timer = asyncio.get_running_loop().call_later(GRACE, self._end)
        elif kind == "http.response.body" and not self._is_complete:
            if self._length is not None:
                self._length -= len(message.get("body", b""))
            self._is_open = True
            if self._is_revoked:
                self._end()

    @property
    def _refused(self) -> Refused:
        return Refused("revoked_token") if self._watch is None else refused_by(self._watch)

    def _revoke(self) -> None:
        self._is_revoked = True
        if self._is_open:
            self._end()

    def _end(self) -> None:
        if self._is_complete or self._host is None:
            return
        self._is_complete = True
        self._closing = asyncio.create_task(self._close(), name="jwt_events close")
        if self._timer is not None:
            self._timer.cancel()
        reason = "the token is no longer good"
        for waiting in self._waiting:
            waiting.cancel(reason)
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._host.cancel, reason)

    async def _close(self) -> None:
        refused = self._refused
        try:
            async with timeout(_CLOSE_TIMEOUT):
                if self._is_accepted:
                    closing = {"type": "websocket.close", "code": refused.close_code, "reason": refused.code}
                    await self._send(closing)
                elif self._is_websocket:
                    await refuse(self._scope, self._send, Denial.of(refused))
                elif not self._length:  # else only the end of the connection can say that something is missing
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:  # noqa: BLE001 - of a server whose client has left
            logger.debug("closing a connection failed", error=describe(error))


def _length_in(start: Message) -> int | None:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None


class Denial(NamedTuple):
    """The response to a request that is not let in.

    Attributes:
        status: the HTTP status.
        headers: the HTTP headers.
        body: sent as JSON.
        close_code: the code to close a WebSocket with instead.
        reason: the reason to close it for.
    """

    status: int
    headers: Mapping[str, str]
    body: object
    close_code: int
    reason: str

    @classmethod
    def of(cls, refused: Refused) -> Denial:
        """Return the response that a refusal describes."""
        return cls(refused.status, refused.headers, refused.body, refused.close_code, refused.code)

    @property
    def is_sendable(self) -> bool:
        """Whether its body is JSON and its headers fit into HTTP, which nothing has checked if a program made them."""
        try:
            headers, _ = self.encoded()
        except (AttributeError, TypeError, ValueError, RecursionError):
            return False
        return not any(_UNFIT.search(part) for header in headers for part in header)

    def encoded(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return its headers and its body as they are sent."""
        content = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()
        described = {**self.headers, "Content-Type": "application/json", "Content-Length": str(len(content))}
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in described.items()], content


async def refuse(scope: Scope, send: Send, denial: Denial) -> None:
    """Send the response to a request that is not let in; a WebSocket gets it before it is accepted.

    Without the extension ``websocket.http.response`` it is closed, which its client sees as 403.
    """
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": denial.close_code, "reason": denial.reason})
            return
    headers, content = denial.encoded()
    await send({"type": f"{kind}.start", "status": denial.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": content})
