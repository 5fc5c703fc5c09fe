"""`SetStream`: a stream of security events at its transmitter, managed as the Shared Signals Framework has it.

Source: OpenID Shared Signals Framework 1.0 §7.2 (discovery), §8.1 (management).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from jwt_events._internal import options
from jwt_events._internal.loops import OwnLoop
from jwt_events.errors import Closed, InvalidOption, SignalRefused, TransmitterError
from jwt_events.signals._configuration import (
    STATUSES,
    StreamConfiguration,
    StreamStatus,
    TransmitterConfiguration,
    delivery,
    read_json,
    read_object,
    wanted,
    well_known_url,
)
from jwt_events.signals._http import HttpClient, SentAuthorization, address
from jwt_events.signals._subjects import parse_subject

_MAX_BYTES = 1_000_000


class SetStream:
    """A stream of security events at its transmitter; an async context manager.

    ::

        async with SetStream("https://id.example", authorization=token) as stream:
            configuration = await stream.create(events_requested=[f"{CAEP}session-revoked"])
            await stream.add_subject({"format": "email", "email": "carol@example.com"})

    Every method raises `TransmitterRefused` if the transmitter refuses it, and `TransmitterError` if it is not reached,
    answers nothing of use, or does not offer this. Requests are not repeated; cancelling one leaves it unknown whether
    it was carried out.

    Args:
        issuer: the issuer, exactly as the transmitter writes it.
        authorization: the value of the ``Authorization`` header, such as ``"Bearer …"``, or a function, plain or async,
            that returns it and is asked for each request.
        stream_id: which stream; ``None`` for the only one that there is, or for the one that `create` makes.
        configuration_url: where the transmitter's configuration is; ``None`` for its well-known address.
        timeout: seconds that a request may take.
        ssl_context: verifies the server; ``None`` for the authorities of this machine.

    Attributes:
        stream_id: the stream, as soon as it is known.

    Raises:
        InvalidOption: an option cannot work.
        ImportError: the extra ``signals`` is not installed.
    """

    def __init__(
        self,
        issuer: str,
        *,
        authorization: SentAuthorization | None = None,
        stream_id: str | None = None,
        configuration_url: str | None = None,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.issuer: str = options.name("issuer", issuer)
        self.stream_id: str | None = None if stream_id is None else options.name("stream_id", stream_id)
        given = None if configuration_url is None else address("configuration_url", configuration_url)
        self._url = given or well_known_url(issuer)
        self._timeout = options.seconds("timeout", timeout)
        self._http = HttpClient("SetStream", authorization, ssl_context)
        self._configuration: TransmitterConfiguration | None = None
        self._resources: AsyncExitStack | None = None
        self._loop = OwnLoop("the stream")

    def __repr__(self) -> str:
        return f"<SetStream {self.stream_id or 'not known yet'} of {self.issuer}>"

    async def __aenter__(self) -> Self:
        if self._resources is not None:
            raise Closed("the stream is open already")
        self._loop.bind()
        resources = AsyncExitStack()
        await resources.enter_async_context(self._http)
        self._resources, self._configuration = resources, None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        resources, self._resources = self._resources, None
        if resources is not None:
            await resources.aclose()
            self._loop.release()

    @property
    def is_open(self) -> bool:
        """Whether it is inside of its context."""
        return self._resources is not None

    async def discover(self) -> TransmitterConfiguration:
        """Return what the transmitter says of itself; asks for it once."""
        if self._configuration is None:
            body = await self._request("GET", self._url)
            self._configuration = TransmitterConfiguration.read(body, self.issuer)
        return self._configuration

    async def create(
        self,
        *,
        events_requested: Iterable[str] | None = None,
        push_url: str | None = None,
        push_authorization: str | None = None,
        description: str | None = None,
    ) -> StreamConfiguration:
        """Create a stream, which is this one from then on.

        Args:
            events_requested: the types of events to ask for.
            push_url: where to push them; ``None`` for a stream that is polled.
            push_authorization: the value of the ``Authorization`` header of each push.
            description: a text for people.
        """
        body = wanted(events_requested, description, delivery(push_url, push_authorization))
        created = await self._configure("POST", body)
        self.stream_id = created.stream_id
        return created

    async def read(self) -> StreamConfiguration:
        """Return the configuration of this stream."""
        body = await self._request("GET", await self._endpoint("configuration_endpoint"), query=await self._this())
        return StreamConfiguration.read(read_object(body))

    async def streams(self) -> list[StreamConfiguration]:
        """Return the configurations of all streams that the transmitter has for this receiver."""
        found = read_json(await self._request("GET", await self._endpoint("configuration_endpoint")))
        listed = [found] if isinstance(found, dict) else found
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise TransmitterError("the answer of the transmitter is no list of streams", status=200)
        return [StreamConfiguration.read(one) for one in listed]

    async def update(
        self,
        *,
        events_requested: Iterable[str] | None = None,
        push_url: str | None = None,
        push_authorization: str | None = None,
        description: str | None = None,
    ) -> StreamConfiguration:
        """Change what is given, and leave the rest as it is; returns the new configuration."""
        delivered = None if push_url is None else delivery(push_url, push_authorization)
        return await self._configure("PATCH", await self._this() | wanted(events_requested, description, delivered))

    async def replace(
        self,
        *,
        events_requested: Iterable[str] | None = None,
        push_url: str | None = None,
        push_authorization: str | None = None,
        description: str | None = None,
    ) -> StreamConfiguration:
        """Set all that a receiver can set; what is not given is removed. Returns the new configuration."""
        body = wanted(events_requested, description, delivery(push_url, push_authorization))
        return await self._configure("PUT", await self._this() | body)

    async def delete(self) -> None:
        """Delete the stream."""
        await self._request("DELETE", await self._endpoint("configuration_endpoint"), query=await self._this())
        self.stream_id = None

    async def status(self) -> StreamStatus:
        """Return the status of the stream."""
        body = await self._request("GET", await self._endpoint("status_endpoint"), query=await self._this())
        return StreamStatus.read(body)

    async def set_status(self, status: str, *, reason: str | None = None) -> StreamStatus:
        """Set the status: ``enabled``, ``paused`` (events are kept) or ``disabled`` (events are lost)."""
        if status not in STATUSES:
            raise InvalidOption("status", f"must be one of {', '.join(STATUSES)}")
        body = {**await self._this(), "status": status, **({} if reason is None else {"reason": reason})}
        return StreamStatus.read(await self._request("POST", await self._endpoint("status_endpoint"), body=body))

    async def verify(self, state: str | None = None) -> None:
        """Ask for a verification event, which the transmitter sends in the stream with this ``state``."""
        body = await self._this() | ({} if state is None else {"state": options.name("state", state)})
        await self._request("POST", await self._endpoint("verification_endpoint"), body=body)

    async def add_subject(self, subject: Mapping[str, Any], *, verified: bool | None = None) -> None:
        """Add a subject, of whom events are sent from then on.

        Args:
            subject: a subject identifier of RFC 9493.
            verified: whether you have verified that it is who it says.
        """
        body: dict[str, Any] = {"subject": _checked(subject), **await self._this()}
        if verified is not None:
            body["verified"] = options.flag("verified", verified)
        await self._request("POST", await self._endpoint("add_subject_endpoint"), body=body)

    async def remove_subject(self, subject: Mapping[str, Any]) -> None:
        """Remove a subject, of whom no events are sent from then on."""
        body = {"subject": _checked(subject), **await self._this()}
        await self._request("POST", await self._endpoint("remove_subject_endpoint"), body=body)

    async def _this(self) -> dict[str, str]:
        """Return the member that names this stream; looks for it if it is the only one."""
        if self.stream_id is None:
            listed = await self.streams()
            if len(listed) != 1:
                raise InvalidOption("stream_id", f"must be given: the transmitter has {len(listed)} streams")
            self.stream_id = listed[0].stream_id
        return {"stream_id": self.stream_id}

    async def _configure(self, method: str, body: Mapping[str, Any]) -> StreamConfiguration:
        answer = await self._request(method, await self._endpoint("configuration_endpoint"), body=body)
        return StreamConfiguration.read(read_object(answer))

    async def _endpoint(self, name: str) -> str:
        found: str | None = getattr(await self.discover(), name)
        if found is None:
            raise TransmitterError(f"the transmitter does not offer this: its configuration has no {name}")
        return found

    async def _request(
        self, method: str, url: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> bytes:
        if self._resources is None:
            raise Closed("use the stream inside `async with`")
        self._loop.check()
        _, answer = await self._http.request(
            method, url, within=self._timeout, max_bytes=_MAX_BYTES, body=body, query=query
        )
        return answer


def _checked(subject: Mapping[str, Any]) -> dict[str, Any]:
    """Return a subject identifier that has the form of one."""
    try:
        parse_subject(dict(subject))
    except (SignalRefused, TypeError, ValueError) as error:
        problem = error.description if isinstance(error, SignalRefused) else "is no mapping"
        raise InvalidOption("subject", f"must be a subject identifier of RFC 9493: {problem}") from None
    return dict(subject)
