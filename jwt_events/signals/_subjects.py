"""Subject identifiers of RFC 9493, and those of SSF 1.0 §3: who or what a security event is about. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jwt_events.signals._token import refused
from jwt_events.signals._verifier import identifier

# By format, the members that it must have.
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "account": ("uri",),
    "did": ("url",),
    "email": ("email",),
    "ip-addresses": (),
    "iss_sub": ("iss", "sub"),
    "jwt_id": ("iss", "jti"),
    "opaque": ("id",),
    "phone_number": ("phone_number",),
    "saml_assertion_id": ("issuer", "assertion_id"),
    "uri": ("uri",),
}
_PARTS = ("user", "session", "device", "tenant", "application", "org_unit", "group")
_MAX_ALIASES = 16

# Google's and Apple's older forms call the format `subject_type` and write it with hyphens.
_OLDER = {"iss-sub": "iss_sub", "id_token_claims": "iss_sub", "phone": "phone_number"}


@dataclass(frozen=True, slots=True)
class SubjectId:
    """A subject identifier, as it was sent.

    Attributes:
        format: one of ``account``, ``did``, ``email``, ``iss_sub``, ``jwt_id``, ``opaque``, ``phone_number``,
            ``saml_assertion_id``, ``uri``, ``ip-addresses``; or ``aliases`` and ``complex``, which have parts; or one
            that the transmitter and you agreed on.
        members: the other members by name: ``{"email": "user@example.com"}``.
        role: what it is in a complex subject: ``user``, ``session``, ``device``, ``tenant``, …; ``None`` if it stands
            alone.
        parts: the identifiers of a complex subject, or the aliases.
    """

    format: str
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    role: str | None = None
    parts: tuple[SubjectId, ...] = ()

    @property
    def value(self) -> str:
        """The identifier itself: the last of the required members; empty if it has parts, or a format of your own."""
        names = _MEMBERS.get(self.format, ())
        return str(self.members[names[-1]]) if names else ""


def is_known_format(subject: SubjectId) -> bool:
    """Return whether the format of a subject is one that a specification defines."""
    return subject.format in _MEMBERS or subject.format in ("aliases", "complex")


def parse_subject(value: object, role: str | None = None) -> SubjectId:
    """Parse a subject identifier.

    Raises:
        SignalRefused: it is not one.
    """
    if not isinstance(value, dict):
        raise refused("the subject is missing, or not an object")
    format_ = value.get("format", value.get("subject_type"))
    if isinstance(format_, str):
        format_ = _OLDER.get(format_, format_)
    if format_ == "complex" or (format_ is None and role is None and any(part in value for part in _PARTS)):
        return _complex(value, role)
    if format_ == "aliases":
        return _aliases(value, role)
    format_ = identifier(format_, "the format of the subject")
    members = {name: member for name, member in value.items() if name not in ("format", "subject_type")}
    for name in _MEMBERS.get(format_, ()):
        identifier(members.get(name), f"{name} of the subject")
    return SubjectId(format_, members, role)


def _complex(value: dict[str, Any], role: str | None) -> SubjectId:
    if role is not None:
        raise refused("a complex subject is nested in another one")
    parts = tuple(parse_subject(part, name) for name, part in _named_parts(value))
    if not parts:
        raise refused("a complex subject names nothing")
    return SubjectId("complex", {}, None, parts)


def _named_parts(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if name not in ("format", "subject_type"):
            yield name, part


def _aliases(value: dict[str, Any], role: str | None) -> SubjectId:
    listed = value.get("identifiers")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_ALIASES:
        raise refused(f"aliases must have a list of 1 to {_MAX_ALIASES} identifiers")
    parts = tuple(parse_subject(one, role or "alias") for one in listed)
    if any(part.parts for part in parts):
        raise refused("aliases are nested in aliases")
    return SubjectId("aliases", {}, role, parts)
