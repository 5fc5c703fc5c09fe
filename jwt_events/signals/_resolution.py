"""Resolution of subject identifiers: whose tokens, sessions or users a security event concerns here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from jwt_events._internal.functions import awaited
from jwt_events.errors import InvalidOption
from jwt_events.signals._subjects import SubjectId
from jwt_events.signals._token import refused
from jwt_events.signals._verifier import identifier


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a subject identifier stands for here.

    Attributes:
        user_id: the ``sub`` of the tokens.
        session_id: their ``sid``.
        token_id: the ``jti`` of one token.
    """

    user_id: str | None = None
    session_id: str | None = None
    token_id: str | None = None


Resolver: TypeAlias = Callable[[SubjectId], Awaitable[Subject | str | None] | Subject | str | None]
"""Returns who a subject identifier stands for: a `Subject`; or the id of a session if its role is ``session``, else the
id of a user; or ``None`` if it is unknown."""


class Resolution:
    """Finds out who a subject is: directly where the tokens carry the same identifier, else by the resolver.

    Args:
        issuer: the issuer whose identifiers the tokens carry; empty if there is none.
        resolver: is asked about all others; ``None`` knows nobody.
        critical: the parts of a complex subject that must be resolved.
    """

    def __init__(self, issuer: str, resolver: Resolver | None, critical: frozenset[str]) -> None:
        self._issuer = issuer
        self._resolver = resolver
        self._critical = critical

    async def resolve(self, subject: SubjectId) -> Subject:
        """Return who a subject is.

        Raises:
            SignalRefused: it is unknown, or has a critical part that is not understood.
        """
        if subject.format == "complex":
            return await self._complex(subject)
        found = await self._first(subject)
        if found is None:
            raise refused("the subject is unknown here")
        return found

    async def _complex(self, subject: SubjectId) -> Subject:
        user = session = token = None
        for part in subject.parts:
            role = part.role or ""
            if role not in ("user", "session") and role not in self._critical:
                continue  # it narrows the subject: without it more is revoked, not less
            found = await self._first(part)
            if found is None:
                raise refused("a part of the subject is unknown here")
            user, session = user or found.user_id, session or found.session_id
            token = token or found.token_id
        if user is None and session is None and token is None:
            return await self._whole(subject)
        return Subject(user, session, token)

    async def _whole(self, subject: SubjectId) -> Subject:
        """Ask the resolver about a complex subject that names neither a user nor a session."""
        found = await self._asked(subject)
        if found is None:
            raise refused("the subject names neither a user nor a session")
        return found

    async def _first(self, subject: SubjectId) -> Subject | None:
        """Return who a simple subject, or the first alias that is known, stands for."""
        for one in subject.parts or (subject,):
            found = self._directly(one, subject.role)
            if found is None:
                found = await self._asked(one)
            if found is not None:
                return found
        return None

    def _directly(self, subject: SubjectId, role: str | None) -> Subject | None:
        if not self._issuer or subject.members.get("iss") != self._issuer:
            return None
        if subject.format == "iss_sub":
            return Subject(session_id=subject.value) if role == "session" else Subject(user_id=subject.value)
        return Subject(token_id=subject.value) if subject.format == "jwt_id" else None

    async def _asked(self, subject: SubjectId) -> Subject | None:
        if self._resolver is None:
            return None
        found = await awaited("subject", self._resolver(subject))
        if isinstance(found, str):
            found = Subject(session_id=found) if subject.role == "session" else Subject(user_id=found)
        if not isinstance(found, Subject | None):
            raise InvalidOption("subject", f"must return text, a Subject or None, not {type(found).__name__}")
        if found is not None:
            for name in ("user_id", "session_id", "token_id"):
                if (value := getattr(found, name)) is not None:
                    identifier(value, name)
            if found == Subject():
                return None
        return found
