"""Events as bytes and back: CloudEvents 1.0 JSON."""

from jwt_events.envelope._codec import (
    MAX_WIRE_BYTES,
    Envelope,
    ask_to_confirm,
    decode,
    decode_any,
    encode,
    encode_event,
    read_revocation,
)
from jwt_events.envelope._sharing import Decoder, Readership

__all__ = [
    "MAX_WIRE_BYTES",
    "Decoder",
    "Envelope",
    "Readership",
    "ask_to_confirm",
    "decode",
    "decode_any",
    "encode",
    "encode_event",
    "read_revocation",
]
