"""Connections that are open for as long as their token is good: WebSockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic

from jwt_events.errors import Closed, ExpiredTokenError, InvalidOption, RevokedTokenError
from jwt_events.guard._admissions import Admission, Admissions, T
from jwt_events.guard._overdue import OverdueClose
from jwt_events.guard._refusal import RefusalCode, Refused
from jwt_events.guard._requirement import Requirement
from jwt_events.guard._stream import Item, all_of, until_revoked
from jwt_events.revocation import RevocationList, ViewState, Watch, expiry_of

_CODES: Mapping[str | None, RefusalCode] = {"expired": "expired_token", "closed": "stale_revocations"}

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

    def ensure_live(self, claims: Mapping[str, object]) -> None:
        """Return if a token is live, and says until when in a way that can be read, if it says so at all.

        Raises:
            JWTEventsError: as `RevocationList.ensure_live` and `RevocationList.watch` do.
        """
        self._revocations.ensure_live(claims)
        if self._until_expiry:
            expiry_of(claims, self._revocations.claim_names)

    def ensure_still_live(self, admission: Admission[T]) -> None:
        """Return if the token of an earlier admission is live.

        Raises:
            Refused: it is not, or that is not known.
        """
        try:
            self._revocations.ensure_live(admission.claims)
        except Exception as error:  # noqa: BLE001 - whatever it is, the token is not live
            refused = self._refusal(error)
        else:
            return
        raise refused

    def watch(self, admission: Admission[T], on_end: Callable[[], object], *, cancel: bool = False) -> Watch:
        """Watch the token of a connection; see `RevocationList.watch`."""
        return self._revocations.watch(admission.claims, on_end, cancel=cancel, until_expiry=self._until_expiry)

    def open(self, admissions: Admissions[T], requirement: Requirement, admission: Admission[T]) -> OpenConnection[T]:
        """Return a connection for a token, which was let in.

        Args:
            admissions: those of its request.
            requirement: what a new token must grant, too.
            admission: that of the token.

        Raises:
            Refused: the list is not open any more.
        """
        connection = OpenConnection(self, requirement, admission)
        if not admission.is_anonymous:
            if self._revocations.state is ViewState.CLOSED:  # what cannot be watched must not be opened
                raise self._refusal(Closed("the revocation list is not open"))
            admissions.connections.append(connection)
        return connection

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
        connections: those of the guard.
        requirement: what a later token must grant, too.
        admission: the token that the connection was let in by. One without a token stays open.
    """

    def __init__(self, connections: Connections[T], requirement: Requirement, admission: Admission[T]) -> None:
        self._connections = connections
        self._requirement = requirement
        self._admission = admission
        self._overdue: OverdueClose | None = None
        self._watch: Watch | None = None  # from when it serves; a client may leave before, or ask for no WebSocket

    @asynccontextmanager
    async def serving(self, close: Close) -> AsyncGenerator[None, None]:
        """Run the handler in the block. A `Refused` that it raises closes the connection, too: a failed renewal.

        Args:
            close: closes the connection, once the handler has ended, or a second after it should have.

        Raises:
            Refused: the block was not run, as the token is no longer good; the connection is closed.
        """
        if self._admission.is_anonymous:
            yield
            return
        try:
            watch = self._watch = self._connections.watch(self._admission, self._on_end, cancel=True)
        except Closed:  # since it was opened
            refused = Refused("stale_revocations")
            await close(refused)
            raise refused from None
        self._overdue = OverdueClose(lambda: close(refused_by(watch)))
        is_served = False
        try:
            async with self._overdue, watch:
                is_served = True
                yield
        except (RevokedTokenError, ExpiredTokenError):
            refused = refused_by(watch)
        except Closed:
            if watch.reason != "closed":  # of the handler: something else is closed
                raise
            refused = refused_by(watch)
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
        if self._watch is None:
            raise Closed("the connection does not serve yet, so there is no token to renew")
        self._requirement.met_by(admission, realm=None)
        self._watch.renew(admission.claims)

    def _on_end(self) -> None:
        if self._overdue is not None:
            self._overdue.start()


def refused_by(watch: Watch) -> Refused:
    """Return what to tell the client of a connection whose token is no longer good, or no longer watched."""
    return Refused(_CODES.get(watch.reason, "revoked_token"))
