"""Documents of a transmitter about itself and about streams, as they are read and written. Pure.

Source: OpenID Shared Signals Framework 1.0 §7.1 (metadata), §8.1.1 (configuration), §8.1.2 (status).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from jwt_events._internal import options
from jwt_events.errors import InvalidOption, TransmitterError
from jwt_events.signals._http import address

PUSH = "urn:ietf:rfc:8935"
POLL = "urn:ietf:rfc:8936"

STATUSES = ("enabled", "paused", "disabled")

_WELL_KNOWN = "/.well-known/ssf-configuration"
_MAX_BRACKETS = 10_000
_MAX_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class TransmitterConfiguration:
    """What a transmitter says of itself. An endpoint is ``None`` if it does not offer it.

    Attributes:
        issuer: the ``iss`` of its tokens.
        jwks_uri: the address of its keys.
        delivery_methods_supported: the URNs of the ways in which it delivers.
        configuration_endpoint: creates, reads, changes and deletes streams.
        status_endpoint: reads and sets the status of a stream.
        add_subject_endpoint: adds subjects to a stream.
        remove_subject_endpoint: removes them.
        verification_endpoint: asks for verification events.
        critical_subject_members: parts of complex subjects that a receiver must understand.
        default_subjects: ``ALL`` or ``NONE``: what is in a stream before subjects are added.
        spec_version: the version of the specification.
    """

    issuer: str
    jwks_uri: str | None = None
    delivery_methods_supported: tuple[str, ...] = ()
    configuration_endpoint: str | None = None
    status_endpoint: str | None = None
    add_subject_endpoint: str | None = None
    remove_subject_endpoint: str | None = None
    verification_endpoint: str | None = None
    critical_subject_members: tuple[str, ...] = ()
    default_subjects: str | None = None
    spec_version: str | None = None

    @classmethod
    def read(cls, body: bytes, issuer: str) -> Self:
        """Parse the document.

        Raises:
            TransmitterError: it is not one, is that of another issuer, or names an address that is no https.
        """
        found = read_object(body)
        if found.get("issuer") != issuer:
            raise _unusable("is the configuration of another issuer")
        addresses = {name: _address(found, name) for name in cls.__slots__ if name.endswith(("_endpoint", "_uri"))}
        return cls(
            issuer=issuer,
            delivery_methods_supported=_texts(found, "delivery_methods_supported"),
            critical_subject_members=_texts(found, "critical_subject_members"),
            default_subjects=_text(found, "default_subjects"),
            spec_version=_text(found, "spec_version"),
            **addresses,
        )


@dataclass(frozen=True, slots=True)
class StreamConfiguration:
    """The configuration of a stream.

    Attributes:
        stream_id: its id.
        issuer: the ``iss`` of its tokens.
        audience: their ``aud``.
        delivery_method: the URN of the way in which it is delivered.
        endpoint_url: where it is pushed to, or polled from.
        events_supported: types of events that the transmitter has.
        events_requested: types that the receiver asked for.
        events_delivered: types that it gets.
        min_verification_interval: seconds between two verification events that may be asked for.
        description: as the receiver has set it.
    """

    stream_id: str
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    delivery_method: str | None = None
    endpoint_url: str | None = None
    events_supported: tuple[str, ...] = ()
    events_requested: tuple[str, ...] = ()
    events_delivered: tuple[str, ...] = ()
    min_verification_interval: float | None = None
    description: str | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Read it from JSON.

        Raises:
            TransmitterError: it is not one.
        """
        delivery = found.get("delivery", {})
        if not isinstance(delivery, dict):
            raise _unusable("has a `delivery` that is no object")
        if (stream_id := _text(found, "stream_id")) is None:
            raise _unusable("has no `stream_id`")
        audience = found.get("aud")
        interval = found.get("min_verification_interval")
        return cls(
            stream_id=stream_id,
            issuer=_text(found, "iss"),
            audience=(audience,) if isinstance(audience, str) else _texts(found, "aud"),
            delivery_method=_text(delivery, "method"),
            endpoint_url=_text(delivery, "endpoint_url"),
            events_supported=_texts(found, "events_supported"),
            events_requested=_texts(found, "events_requested"),
            events_delivered=_texts(found, "events_delivered"),
            min_verification_interval=float(interval) if isinstance(interval, int | float) else None,
            description=_text(found, "description"),
        )


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The status of a stream.

    Attributes:
        stream_id: the id of the stream.
        status: ``enabled``, ``paused`` or ``disabled``.
        reason: why, if the transmitter says so.
    """

    stream_id: str
    status: str
    reason: str | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Parse it.

        Raises:
            TransmitterError: it is not one.
        """
        found = read_object(body)
        stream_id, status = _text(found, "stream_id"), _text(found, "status")
        if stream_id is None or status not in STATUSES:
            raise _unusable("has no `stream_id`, or a `status` that is unknown")
        return cls(stream_id, status, _text(found, "reason"))


def well_known_url(issuer: str) -> str:
    """Return where the configuration of a transmitter is: the well-known path goes between host and path (§7.2.1)."""
    parts = urlsplit(address("issuer", issuer))
    return parts._replace(path=_WELL_KNOWN + parts.path.rstrip("/"), query="").geturl()


def delivery(push_url: str | None, push_authorization: str | None) -> dict[str, str]:
    """Return the delivery that a receiver asks for: to be pushed to its address, else to poll.

    Raises:
        InvalidOption: the address cannot be one.
    """
    if push_url is None:
        if push_authorization is not None:
            raise InvalidOption("push_authorization", "needs push_url: a stream that is polled is not pushed")
        return {"method": POLL}
    found = {"method": PUSH, "endpoint_url": address("push_url", push_url)}
    return found if push_authorization is None else found | {"authorization_header": push_authorization}


def wanted(
    events_requested: Iterable[str] | None, description: str | None, delivered: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the properties that a receiver supplies, without those that are ``None``."""
    found: dict[str, Any] = {}
    if events_requested is not None:
        listed = [events_requested] if isinstance(events_requested, str) else [*events_requested]
        found["events_requested"] = [options.name("events_requested", one) for one in listed]
    if description is not None:
        found["description"] = options.name("description", description)
    if delivered is not None:
        found["delivery"] = dict(delivered)
    return found


def read_object(body: bytes) -> dict[str, Any]:
    """Parse the body of an answer, which must be a JSON object.

    Raises:
        TransmitterError: it is not.
    """
    found = read_json(body)
    if not isinstance(found, dict):
        raise _unusable("is not a JSON object")
    return found


def read_json(body: bytes) -> Any:
    """Parse the body of an answer.

    Raises:
        TransmitterError: it is not JSON.
    """
    if body.count(b"{") + body.count(b"[") > _MAX_BRACKETS:
        raise _unusable("is nested too deep")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise _unusable("is not JSON") from None


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > 4_096 or not value.isprintable():
        raise _unusable(f"has a `{name}` that is not printable text")
    return value


def _texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = found.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > _MAX_LISTED or not all(isinstance(one, str) for one in values):
        raise _unusable(f"has a `{name}` that is no list of text")
    return tuple(values)


def _address(found: Mapping[str, Any], name: str) -> str | None:
    value = _text(found, name)
    try:
        return None if value is None else address(name, value)
    except InvalidOption as error:
        raise _unusable(f"has an address that cannot be used; {error}") from None


def _unusable(problem: str) -> TransmitterError:
    return TransmitterError(f"the answer of the transmitter {problem}", status=200)
