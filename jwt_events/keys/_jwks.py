"""Parser of JWK Sets (RFC 7517): the entries that are public keys and can verify a signature. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from jwt_events.errors import InvalidKeySet
from jwt_events.events import MAX_IDENTIFIER_LENGTH, fingerprint

if TYPE_CHECKING:
    from jwt import PyJWK

MAX_ENTRIES = 256
MIN_RSA_BITS = 2048
"""RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used"."""

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

# By key type and curve. Everything else is refused, above all symmetric keys: in a set that is public, such a "secret"
# would let every reader sign.
_ALGORITHMS = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("EC", "secp256k1"): frozenset({"ES256K"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """An unusable entry of a JWK Set.

    Attributes:
        fingerprint: the fingerprint of its ``kid``; ``None`` if it has none.
        problem: what is wrong with it, one of a few constant phrases.
    """

    fingerprint: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a JWK Set, and the entries that were skipped.

    Attributes:
        named: the keys by their ``kid``.
        unnamed: the keys without a ``kid``.
        skipped: the unusable entries, without those that are meant for other purposes.
    """

    named: dict[str, PyJWK]
    unnamed: tuple[PyJWK, ...]
    skipped: tuple[Skipped, ...]


class _Unusable(Exception):
    """Raised for an unusable entry; the message says why."""


def require_pyjwt() -> None:
    """Raise ``ImportError``, which says what to install, unless the extra ``keys`` is installed."""
    try:
        from jwt.algorithms import has_crypto  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("SigningKeys needs PyJWT; get it from a clone: pip install '.[keys]'") from error
    if not has_crypto:
        raise ImportError("SigningKeys needs cryptography; get it from a clone: pip install '.[keys]'")


def read(document: object) -> KeySet:
    """Return the usable keys of a decoded JWK Set.

    A broken entry does not affect the others. Entries for other purposes (``use`` or ``key_ops``) are ignored. Of
    several entries with one ``kid`` the first usable one counts.

    Raises:
        InvalidKeySet: ``document`` is not a JWK Set, or no entry is usable.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeySet('not a JWK Set: it must be an object with a list called "keys"')
    if len(entries) > MAX_ENTRIES:
        raise InvalidKeySet(f"a JWK Set of {len(entries)} entries, the limit is {MAX_ENTRIES}")
    named: dict[str, PyJWK] = {}
    unnamed: list[PyJWK] = []
    skipped: list[Skipped] = []
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        try:
            key = _key(entry)
            if key is not None and kid is None:
                unnamed.append(key)
            elif key is not None and named.setdefault(name := _name(kid), key) is not key:
                skipped.append(Skipped(fingerprint(name), "kid appears twice"))
        except _Unusable as error:
            skipped.append(Skipped(fingerprint(kid) if isinstance(kid, str) else None, str(error)))
    if not named and not unnamed:
        raise InvalidKeySet(f"a JWK Set of {len(entries)} entries, none of which can verify a signature")
    return KeySet(named, tuple(unnamed), tuple(skipped))


def is_kid(value: object) -> TypeGuard[str]:
    """Return whether a value can be the name of a key: in a token, the sender can put any value there."""
    return isinstance(value, str) and 0 < len(value) <= MAX_IDENTIFIER_LENGTH


def _name(kid: object) -> str:
    if not is_kid(kid):
        raise _Unusable(f"kid is not a text of 1 to {MAX_IDENTIFIER_LENGTH} characters")
    return kid


def _is_for_signatures(use: object, operations: object) -> bool:
    """Return whether a key is meant for signatures (RFC 7517 §4.2, §4.3). Some issuers write null for "absent"."""
    if operations is not None and not isinstance(operations, list):
        raise _Unusable("key_ops is not a list")
    verifies = operations is None or "verify" in operations
    if use == "sig" and not verifies:
        raise _Unusable("use is sig, but key_ops lacks verify")
    return use in (None, "sig") and verifies


def _key(entry: Any) -> PyJWK | None:
    """Parse an entry; ``None`` if its key is not meant for signatures."""
    from jwt import PyJWK  # noqa: PLC0415 - an extra

    if not isinstance(entry, dict):
        raise _Unusable("not an object")
    if not _is_for_signatures(entry.get("use"), entry.get("key_ops")):
        return None
    kind, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None) or (kind, curve) not in _ALGORITHMS:
        raise _Unusable("symmetric key" if kind == "oct" else "unsupported key type or curve")
    if "d" in entry:
        raise _Unusable("private key, which everybody knows now")
    try:
        key = PyJWK(entry)
    except Exception as error:  # parsers raise many types for broken entries; each is skipped alone
        # Not the error's text, which quotes the whole entry.
        raise _Unusable("cannot be read") from error
    if key.algorithm_name not in _ALGORITHMS[kind, curve]:
        raise _Unusable("algorithm does not suit the key")
    if kind == "RSA" and key.key.key_size < MIN_RSA_BITS:
        raise _Unusable(f"RSA key of less than {MIN_RSA_BITS} bits")
    return key
