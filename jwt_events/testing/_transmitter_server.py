"""The server of a transmitter, on this machine: polling (RFC 8936) and management of streams (SSF 1.0 §7, §8)."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from jwt_events.signals import CAEP, STREAM_UPDATED

if TYPE_CHECKING:
    from jwt_events.testing._transmitter import Transmitter

_POLL = "urn:ietf:rfc:8936"
_SUPPORTED = [f"{CAEP}session-revoked", f"{CAEP}credential-change"]


class TransmitterServer:
    """A transmitter that serves polls and the management of its streams, on a port of this machine.

    Attributes:
        pending: the tokens that were neither acknowledged nor refused, by their ``jti``.
        acknowledged: the ``jti`` of each acknowledgement, in the order in which they came.
        lost: how many of the next verification events it loses, as a transmitter whose stream is dead does.
        refused: what receivers said of tokens that they refused, by ``jti``.
        polls: the bodies of the polls that were let in.
        streams: the streams by their id, as JSON.
        removed: the subjects that were removed, of which nothing is sent.
    """

    def __init__(self, transmitter: Transmitter, *, authorization: str | None = None, long_poll: float = 30.0) -> None:
        self._transmitter = transmitter
        self._authorization = authorization
        self._long_poll = long_poll
        self._arrived = asyncio.Event()
        self._failures: deque[Callable[[], Awaitable[web.StreamResponse]]] = deque()
        self._runner: web.AppRunner | None = None
        self._stopping = False
        self.url: str = ""
        self.pending: dict[str, str] = {}
        self.acknowledged: list[str] = []
        self.lost: int = 0
        self.refused: dict[str, dict[str, str]] = {}
        self.polls: list[dict[str, Any]] = []
        self.streams: dict[str, dict[str, Any]] = {}
        self.removed: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/.well-known/ssf-configuration", self._describe)
        app.router.add_get("/jwks", self._keys)
        app.router.add_post("/poll", self._answer_poll)
        app.router.add_route("*", "/streams", self._answer_streams)
        app.router.add_route("*", "/status", self._answer_status)
        app.router.add_post("/subjects:add", self._add_subject)
        app.router.add_post("/subjects:remove", self._remove_subject)
        app.router.add_post("/verify", self._verify)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        self._arrived.set()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def poll_url(self) -> str:
        """The address to poll."""
        return f"{self.url}/poll"

    @property
    def configuration_url(self) -> str:
        """The address of its configuration."""
        return f"{self.url}/.well-known/ssf-configuration"

    def enqueue(self, token: str, jti: str | None = None) -> str:
        """Let the next poll have a token, good or bad; return the ``jti`` that it is sent under."""
        name = jti or _jti_of(token)
        self.pending[name] = token
        self._arrived.set()
        return name

    def emit(
        self, kind: str, subject: Mapping[str, Any], payload: Mapping[str, Any] | None = None, **claims: Any
    ) -> str | None:
        """Make a security event token and enqueue it; return its ``jti``, ``None`` if its subject was removed."""
        if dict(subject) in self.removed:
            return None
        return self.enqueue(self._transmitter.security_event(kind, subject, payload, **claims))

    def fail(self, status: int = 500, *, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer the next poll, or the one after those that fail already, with this in place of tokens."""

        async def answer() -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=headers)

        self._failures.append(answer)

    def hang(self) -> asyncio.Event:
        """Do not answer the next poll until the event that is returned is set."""
        released = asyncio.Event()

        async def answer() -> web.StreamResponse:
            await released.wait()
            return web.Response(status=503)

        self._failures.append(answer)
        return released

    def set_status(self, stream_id: str, status: str) -> None:
        """Change the status of a stream, as a transmitter does by itself, and say so in the stream."""
        self.streams[stream_id]["status"] = status
        self.enqueue(self._transmitter.stream_updated(status))

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        is_public = request.path in ("/.well-known/ssf-configuration", "/jwks")
        if not is_public and self._authorization not in (None, request.headers.get("Authorization")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _describe(self, _: web.Request) -> web.Response:
        endpoints = {
            "configuration_endpoint": "/streams",
            "status_endpoint": "/status",
            "add_subject_endpoint": "/subjects:add",
            "remove_subject_endpoint": "/subjects:remove",
            "verification_endpoint": "/verify",
            "jwks_uri": "/jwks",
        }
        about = {"spec_version": "1_0", "issuer": self._transmitter.issuer, "default_subjects": "ALL"}
        methods = {"delivery_methods_supported": ["urn:ietf:rfc:8935", _POLL]}
        return web.json_response({**about, **methods, **{name: self.url + path for name, path in endpoints.items()}})

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response(self._transmitter.jwks())

    async def _answer_poll(self, request: web.Request) -> web.StreamResponse:
        if self._failures:
            return await self._failures.popleft()()
        body = await request.json()
        self.polls.append(body)
        self._settle(body)
        wanted = body.get("maxEvents", 100)
        if wanted and not body.get("returnImmediately", False):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._long_poll):
                    await self._until_something()
        sent = dict([*self.pending.items()][:wanted]) if self._is_enabled() else {}
        return web.json_response({"sets": sent, "moreAvailable": bool(wanted) and len(sent) < len(self.pending)})

    def _settle(self, body: Mapping[str, Any]) -> None:
        for jti in body.get("ack", []):
            self.acknowledged.append(jti)
            self.pending.pop(jti, None)
        for jti, error in body.get("setErrs", {}).items():
            self.refused[jti] = error
            self.pending.pop(jti, None)

    async def _until_something(self) -> None:
        while not (self._stopping or (self.pending and self._is_enabled())):
            self._arrived.clear()
            await self._arrived.wait()

    def _is_enabled(self) -> bool:
        """Whether tokens are sent: also while a stream is paused, if it is about that."""
        return all(stream["status"] == "enabled" for stream in self.streams.values()) or any(
            STREAM_UPDATED in _claims_of(token).get("events", ()) for token in self.pending.values()
        )

    async def _answer_streams(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            stream_id = uuid.uuid4().hex
            self.streams[stream_id] = {"status": "enabled", **self._configured(stream_id, await request.json())}
            return web.json_response(_shown(self.streams[stream_id]), status=201)
        if request.method == "GET" and "stream_id" not in request.query:
            return web.json_response([_shown(stream) for stream in self.streams.values()])
        body = {} if request.method in ("GET", "DELETE") else await request.json()
        stream = self._stream(request, body)
        if request.method == "DELETE":
            del self.streams[stream["stream_id"]]
            return web.Response(status=204)
        if request.method == "PUT":
            stream.update(self._configured(stream["stream_id"], body))
        elif request.method == "PATCH":
            stream.update(self._configured(stream["stream_id"], {**_asked(stream), **body}))
        return web.json_response(_shown(stream))

    def _configured(self, stream_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        delivery = dict(body.get("delivery", {"method": _POLL}))
        if delivery["method"] == _POLL:
            delivery["endpoint_url"] = self.poll_url
        requested = body.get("events_requested", [])
        return {
            "stream_id": stream_id,
            "iss": self._transmitter.issuer,
            "aud": self._transmitter.audience,
            "delivery": delivery,
            "events_supported": _SUPPORTED,
            "events_requested": requested,
            "events_delivered": [kind for kind in requested if kind in _SUPPORTED],
            "min_verification_interval": 60,
            "description": body.get("description"),
        }

    async def _answer_status(self, request: web.Request) -> web.Response:
        body = await request.json() if request.method == "POST" else {}
        stream = self._stream(request, body)
        if body:
            stream["status"], stream["reason"] = body["status"], body.get("reason")
            self._arrived.set()
        return web.json_response({name: stream[name] for name in ("stream_id", "status", "reason") if stream.get(name)})

    async def _add_subject(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._stream(request, body)
        if body["subject"] in self.removed:
            self.removed.remove(body["subject"])
        return web.Response(status=200)

    async def _remove_subject(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._stream(request, body)
        self.removed.append(body["subject"])
        return web.Response(status=204)

    async def _verify(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._stream(request, body)
        if self.lost:
            self.lost -= 1
        else:
            self.enqueue(self._transmitter.verification(body.get("state")))
        return web.Response(status=204)

    def _stream(self, request: web.Request, body: Mapping[str, Any]) -> dict[str, Any]:
        stream = self.streams.get(body.get("stream_id", request.query.get("stream_id", "")))
        if stream is None:
            raise web.HTTPNotFound
        return stream


def _shown(stream: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stream.items() if name not in ("status", "reason") and value is not None}


def _asked(stream: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stream.get(name) for name in ("delivery", "events_requested", "description")}


def _claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token; none if it is not one."""
    try:
        payload = str(token).split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _jti_of(token: str) -> str:
    jti = _claims_of(token).get("jti")
    return jti if isinstance(jti, str) and jti else uuid.uuid4().hex
