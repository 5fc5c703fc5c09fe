"""Connections that are open for as long as their token is good: WebSockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic

from jwt_events.errors import ExpiredTokenError, InvalidOption, RevokedTokenError
from jwt_events.guard._admissions import Admission, Admissions, T
from jwt_events.guard._overdue import OverdueClose
from jwt_events.guard._refusal import Refused
from jwt_events.guard._requirement import Requirement
from jwt_events.guard._stream import Item, all_of, until_revoked
from jwt_events.revocation import RevocationList, Watch

Close = Callable[[Refused], Awaitable[object]]
"""Closes a connection, and tells its client why."""


class Connections(Generic[T]):
    """The connections that a guard keeps open.

    Args:
        revocations: reports the ends of tokens.
        admit: verifies a token.
        refusal: returns what to raise for an error.
        until_expiry: whether connections end with the ``exp`` of their token.
    """

    def __init__(
        self,
        revocations: RevocationList,
        admit: Callable[[str], Awaitable[Admission[T]]],
        refusal: Callable[[Exception], Exception],
        *,
        until_expiry: bool,
    ) -> None:
        self._revocations = revocations
        self._admit = admit
        self._refusal = refusal
        self._until_expiry = until_expiry

    def open(self, admissions: Admissions[T], requirement: Requirement, admission: Admission[T]) -> OpenConnection[T]:
        """Return a connection for a token, which was let in.

        Args:
            admissions: those of its request.
            requirement: what a new token must grant, too.
            admission: that of the token.

        Raises:
            Refused: the ``exp`` is not a number, or the list is not open any more.
        """
        try:
            connection = OpenConnection(self._revocations, admission, requirement, until_expiry=self._until_expiry)
        except Exception as error:  # noqa: BLE001 - without a watch the connection must not be opened
            refused = self._refusal(error)
        else:
            if not admission.is_anonymous:
                admissions.connections.append(connection)
            return connection
        raise refused

    def stream(
        self, admission: Admission[T], items: AsyncIterable[Item], close: Callable[[], object] | None
    ) -> AsyncGenerator[Item, None]:
        """Yield items as `until_revoked` does; all of them if they were asked for without a token."""
        if admission.is_anonymous:
            return all_of(items)
        return until_revoked(self._revocations, admission.claims, items, close=close, until_expiry=self._until_expiry)

    async def renew(self, admissions: Admissions[T], token: str) -> Admission[T]:
        """Verify a new token, and go on with it on the connection of a request.

        Raises:
            InvalidOption: no connection of this request was opened for a token.
            Refused: it is not good, or not about the same subject; what was in use before is in use.
        """
        if not admissions.connections:
            raise InvalidOption("connection", "was not opened for a token, so there is none to renew")
        try:
            admission = await self._admit(token)
            # From here on there is no await: what is revoked meanwhile is revoked before or after.
            for connection in admissions.connections:
                connection.renew(admission)
        except Exception as error:  # noqa: BLE001 - after any exception the token is not verified
            refused = self._refusal(error)
        else:
            admissions.renew(token, admission)
            return admission
        # A response in the words of `decode` cannot be sent once a WebSocket is open.
        raise refused if isinstance(refused, Refused) else Refused("invalid_token")


class OpenConnection(Generic[T]):
    """Ends the handler of a connection when its token is revoked or expires, and closes the connection then.

    Args:
        revocations: reports the end; it must be open.
        admission: the token that the connection was let in by. One without a token stays open.
        requirement: what a later token must grant, too.
        until_expiry: whether the connection ends with the token's ``exp``.

    Raises:
        InvalidClaims: the ``exp`` is not a number.
        Closed: the list is not open.
    """

    def __init__(
        self, revocations: RevocationList, admission: Admission[T], requirement: Requirement, *, until_expiry: bool
    ) -> None:
        self._requirement = requirement
        self._overdue: OverdueClose | None = None
        self._watch: Watch | None = None
        if not admission.is_anonymous:
            claims = admission.claims
            self._watch = revocations.watch(claims, self._on_end, cancel=True, until_expiry=until_expiry)

    @asynccontextmanager
    async def serving(self, close: Close) -> AsyncGenerator[None, None]:
        """Run the handler in the block. A `Refused` that it raises closes the connection, too: a failed renewal.

        Args:
            close: closes the connection, once the handler has ended, or a second after it should have.

        Raises:
            Refused: the block was not run, as the token is no longer good; the connection is closed.
        """
        if self._watch is None:
            yield
            return
        self._overdue = OverdueClose(lambda: close(self._refused))
        is_served = False
        try:
            async with self._overdue, self._watch:
                is_served = True
                yield
        except (RevokedTokenError, ExpiredTokenError):
            refused = self._refused
        except Refused as error:
            refused = error
        else:
            return
        await close(refused)
        if not is_served:
            raise refused  # in place of the block

    def renew(self, admission: Admission[T]) -> None:
        """Go on with a new token.

        Raises:
            Refused: there is none, or it does not grant what the first one had to.
            JWTEventsError: as `Watch.renew` does.
        """
        if admission.is_anonymous:
            raise Refused("missing_token")
        if not self._requirement.is_met_by(admission.claims):
            raise Refused("insufficient_scope", scope=str(self._requirement))
        if self._watch is not None:
            self._watch.renew(admission.claims)

    @property
    def _refused(self) -> Refused:
        is_expired = self._watch is not None and self._watch.reason == "expired"
        return Refused("expired_token" if is_expired else "revoked_token")

    def _on_end(self) -> None:
        if self._overdue is not None:
            self._overdue.start()
