"""Global Token Revocation: a request that names a user, all of whose tokens are revoked. A draft, which may change.

The request is not signed: what authenticates it is the ``Authorization`` header alone.

Source: draft-parecki-oauth-global-token-revocation-06 §3.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from jwt_events._internal import options
from jwt_events._internal.functions import function
from jwt_events.errors import InvalidEvent, InvalidOption, SignalRefused
from jwt_events.events import Event, EventType
from jwt_events.instrumentation import SignalOutcome
from jwt_events.publisher import Publisher
from jwt_events.signals._endpoint import Authorization, Endpoint, Rejected
from jwt_events.signals._identity import build, instant, metadata
from jwt_events.signals._resolution import Resolution, Resolver, Subject
from jwt_events.signals._subjects import is_known_format, parse_subject
from jwt_events.signals._token import parse_object, refused

GLOBAL_TOKEN_REVOCATION = "draft-parecki-oauth-global-token-revocation-06"
"""The draft that is implemented; name it to say that you know which."""

_KIND = "global-token-revocation"


class GlobalRevocationEndpoint(Endpoint):
    """Receives requests to revoke all tokens of a user: 204, or 404 if the user is unknown, 422 if that cannot be done.

    A request that comes again revokes again, as it has no id.

    Args:
        publisher: publishes the events; open it before.
        subject: resolves subject identifiers, as of `SecurityEvents`; ``None`` if all of them are ``iss_sub`` of the
            ``issuer``.
        draft: the name of the draft that the sender implements; the only one is ``GLOBAL_TOKEN_REVOCATION``.
        authorization: the value that the ``Authorization`` header must have, or a function that returns whether it is
            right. The draft demands one.
        issuer: the issuer of your tokens: a subject ``iss_sub`` of this issuer is their ``sub``.
        options: ``rate``, ``metrics`` and ``tracer_provider``.

    Raises:
        InvalidOption: an option cannot work.
    """

    content_type = "application/json"
    success = 204
    error_member = "error"
    description_member = "error_description"
    unavailable = 503

    def __init__(
        self,
        publisher: Publisher,
        subject: Resolver | None,
        *,
        draft: str,
        authorization: Authorization,
        issuer: str | None = None,
        **options_: Any,
    ) -> None:
        if draft != GLOBAL_TOKEN_REVOCATION:
            raise InvalidOption("draft", f"must be {GLOBAL_TOKEN_REVOCATION!r}, the only one that is implemented")
        if authorization is None:
            raise InvalidOption("authorization", "must be given: nothing else says who may revoke")
        if subject is None and issuer is None:
            raise InvalidOption("subject", "must be a function, or issuer must be given: nothing says who a subject is")
        issuer = "" if issuer is None else options.name("issuer", issuer)
        super().__init__(publisher, issuer or _KIND, authorization=authorization, **options_)
        self._resolution = Resolution(issuer, None if subject is None else function("subject", subject), frozenset())
        self._issuer = issuer

    def _find_token(self, body: bytes) -> str:
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise refused("the body is not UTF-8") from None

    async def _receive(self, token: str) -> tuple[str, SignalOutcome]:
        """Revoke all tokens of the user that the body of a request names."""
        body = parse_object(token, "body")
        if body.keys() != {"sub_id"}:
            raise refused("the body must have sub_id and nothing else")
        subject = await self._resolve(body["sub_id"])
        if subject.user_id is None:
            raise Rejected(422, "unprocessable", "the subject is known, and is not a user")
        try:
            await self._publish([self._event(subject.user_id)])
        except InvalidEvent:
            raise Rejected(422, "unprocessable", "the event that it stands for cannot be published") from None
        return _KIND, SignalOutcome.PUBLISHED

    async def _resolve(self, sub_id: object) -> Subject:
        subject = parse_subject(sub_id)
        try:
            return await self._resolution.resolve(subject)
        except SignalRefused:
            if not is_known_format(subject):
                raise refused("the format of the subject is unknown") from None
            raise Rejected(404, "not_found", "the subject is unknown here") from None

    def _event(self, user_id: str) -> Event:
        now = instant(time.time())
        common = {"id": str(uuid.uuid4()), "occurred_at": now, "metadata": metadata(issuer=self._issuer, signal=_KIND)}
        return build(EventType.TOKEN_REVOKED, user_id=user_id, issued_before=now, reason=_KIND, **common)
