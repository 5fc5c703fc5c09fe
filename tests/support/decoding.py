"""Decoding with and without the canonical path, compared in every detail."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable
from itertools import islice
from unittest.mock import patch

from jwt_events import DecodeError, envelope
from jwt_events.envelope import decode


def decoded(payload: bytes) -> tuple[object, ...]:
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


def forms(payload: bytes) -> list[object]:
    """Return an event in every form that users can bring it into: copied, unpickled, dumped, hashed, shown."""
    event = decode(payload).event
    same = [event, pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event), event.model_copy()]
    states = [{**each.__getstate__(), "class": type(each)} for each in same]
    return [*states, event.model_dump(), event.model_dump_json(), hash(event), repr(event), hasattr(event, "new")]


def differences(payloads: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Return the payloads that the canonical path decodes to something else, and how many it covers."""
    different, covered, pending = [], 0, iter(payloads)
    while some := list(islice(pending, 1_000)):
        covered += sum(
            any(decoder(payload) is not None for decoder in envelope._CANONICAL.values()) for payload in some
        )
        found = [decoded(payload) for payload in some]
        with patch.object(envelope, "_CANONICAL", {}):
            different += [one for one, outcome in zip(some, found, strict=True) if decoded(one) != outcome]
    return different, covered
