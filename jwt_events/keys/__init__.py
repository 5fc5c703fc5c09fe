"""Cache of an issuer's signing keys."""

from jwt_events.keys._keys import SigningKeys, SigningKeysStats

__all__ = ["SigningKeys", "SigningKeysStats"]
