"""Decoding with and without the canonical path, compared in every detail."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable

from jwt_events import DecodeError
from jwt_events.envelope import MAX_WIRE_BYTES, Envelope, decode, decode_any
from jwt_events.envelope import _codec as envelope
from jwt_events.events import canonical_decoder

_covered: Callable[[bytes], Envelope | None] = canonical_decoder(
    envelope._CLASSES, Envelope, lambda payload: None, max_bytes=MAX_WIRE_BYTES
)


def is_covered(payload: bytes) -> bool:
    """Return whether the canonical path decodes a message."""
    return _covered(payload) is not None


def decoded(payload: bytes, decode: Callable[[bytes], Envelope] = decode) -> tuple[object, ...]:
    """Return everything that decoding reveals: every detail of the event, or of the error."""
    try:
        event, traceparent, tracestate, confirm = decode(payload)
    except DecodeError as error:
        return error.reason, error.detail
    values = dict(event.__dict__)
    if "occurred_at" not in event.model_fields_set:
        del values["occurred_at"]  # without a time, it is the time of reading
    described = (repr(list(values.items())), event.model_fields_set, type(event.model_fields_set))
    hidden = (event.__pydantic_extra__, event.__pydantic_private__)
    return type(event), *described, *hidden, traceparent, tracestate, confirm


def forms(payload: bytes, decode: Callable[[bytes], Envelope] = decode) -> list[object]:
    """Return an event in every form that users can bring it into: copied, unpickled, dumped, hashed, shown."""
    event = decode(payload).event
    same = [event, pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event), event.model_copy()]
    states = [{**each.__getstate__(), "class": type(each)} for each in same]
    return [*states, event.model_dump(), event.model_dump_json(), hash(event), repr(event), hasattr(event, "new")]


def differences(payloads: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Return the payloads that the canonical path decodes to something else, and how many it covers."""
    different, covered = [], 0
    for payload in payloads:
        covered += is_covered(payload)
        if decoded(payload) != decoded(payload, decode_any):
            different.append(payload)
    return different, covered
