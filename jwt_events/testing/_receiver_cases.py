"""What a receiver of security events must do, as cases: tokens in, answers and events out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from jwt_events.signals import CAEP
from jwt_events.testing._transmitter import Transmitter


@dataclass(frozen=True, slots=True)
class ReceiverCase:
    """One case of the list.

    Attributes:
        name: what it is about.
        tokens: the tokens, in the order in which they are delivered.
        answers: for each, the code that a receiver must refuse it with; ``None`` if it must accept it.
        events: how many events are on the bus in the end.
    """

    name: str
    tokens: tuple[str, ...]
    answers: tuple[str | None, ...]
    events: int


def receiver_cases(transmitter: Transmitter) -> list[ReceiverCase]:
    """Return what the receiver tests of Shared Signals ask: for push and poll delivery, in any order.

    The receiver must not expect a verification event, and knows the subject ``alice`` of this issuer.
    """
    kind, alice = f"{CAEP}session-revoked", transmitter.subject("alice")
    bad = transmitter.bad_security_events()
    now = int(time.time())
    first = transmitter.security_event(kind, alice, {"event_timestamp": now - 60}, iat=now - 60)
    second = transmitter.security_event(kind, alice, {"event_timestamp": now - 30}, iat=now - 30)
    again = transmitter.security_event(kind, alice)
    removed = transmitter.security_event(kind, alice, {"event_timestamp": now - 300}, iat=now - 300)
    refused = {
        "wrong signature": "signature of another key",
        "wrong issuer": "another issuer",
        "wrong audience": "another receiver",
        "unknown kid": "unknown kid",
        "unsigned": "alg none",
        "unknown subject": "unknown subject",
    }
    return [
        ReceiverCase("happy path", (transmitter.security_event(kind, alice),), (None,), 1),
        *(ReceiverCase(name, (bad[key][0],), (bad[key][1],), 0) for name, key in refused.items()),
        ReceiverCase("redelivery", (again, again), (None, None), 1),
        ReceiverCase("out of order", (second, first), (None, None), 2),
        ReceiverCase("verification", (transmitter.verification(),), (None,), 0),
        ReceiverCase("verification with a wrong state", (transmitter.verification("wrong"),), ("invalid_state",), 0),
        ReceiverCase("event that was under way when its subject was removed", (removed,), (None,), 1),
        ReceiverCase(
            "status updates",
            (transmitter.stream_updated("paused"), transmitter.stream_updated("enabled")),
            (None, None),
            0,
        ),
        ReceiverCase("type that is unknown", (transmitter.security_event("https://x.example/y", alice),), (None,), 0),
    ]
