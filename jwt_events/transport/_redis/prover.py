"""Gathers what proves that a reader is at the owner: what its server says, and what the Sentinels say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jwt_events.errors import NotProven
from jwt_events.transport._redis.client_options import address_of
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.owner import Owner
from jwt_events.transport._redis.proof import Proof, Replication
from jwt_events.transport._redis.survey import Address

# Seconds after which a server that has lost its replicas, or the primaries of its cluster, is left, as another one may
# have replaced it. Each time twice as many, as most often none has.
_INITIAL_TIMEOUT = 2.0
_MAX_TIMEOUT = 30.0


class Prover:
    """Gathers the proofs of one receiver.

    The Sentinels are asked when the server is, and what the server delivers does not wait for them: a proof counts when
    enough of them have replied.

    Args:
        address: the server, as messages name it.
        replicas: how many replicas must be in contact with it.
        owner: says which server the owner is.
    """

    def __init__(self, address: str, owner: Owner, *, replicas: int = 0) -> None:
        self._address = self._server = address
        self._replicas = replicas
        self._owner = owner
        self._place: Address | None = None  # of the present connection
        self._surveyed_at = 0.0  # when the Sentinels were asked
        self._is_surveying = False
        self._heard: Proof | None = None  # what the server said then
        self._leave_after = _INITIAL_TIMEOUT
        self._in_doubt_since: float | None = None
        self._refusal: NotProven | None = None
        self.current_as_of: float | None = None
        """The time of the last proof; ``None`` if the last answer was none."""

    @property
    def commands(self) -> Sequence[Command]:
        """What the server is asked beside its role."""
        return self._owner.commands

    def connect(self, place: Address | None) -> None:
        """Begin with a new connection."""
        self._place = place
        if self._owner.asks_others and place is not None:
            self._server = f"{address_of(place)} of {self._address}"
        self._is_surveying = False
        self._heard = self._refusal = self.current_as_of = self._in_doubt_since = None

    def request(self, now: float) -> None:
        """Ask the Sentinels, as the server is asked now; those that were asked before may still reply."""
        if self._owner.asks_others and not self._is_surveying:
            self._owner.request()
            self._surveyed_at = now
            self._is_surveying = True

    def hear(self, replication: Replication, asked_at: float, said: Sequence[Any] = ()) -> None:
        """Take what the server said when it was asked at that time.

        Args:
            replication: what it said of its role.
            asked_at: when it was asked.
            said: what it replied to `commands`.

        Raises:
            NotProven: it is to be left.
            TransportError: it did not reply to one of them; the message names the right that is missing.
        """
        membership = self._owner.membership(said)
        proof = Proof(self._server, replication, asked_at, self._replicas, self._place, membership=membership)
        if len(said) < len(self.commands) and not proof.must_be_left:
            return  # asked before it was known that the server is a node of a cluster
        if not self._owner.asks_others or proof.must_be_left:
            self._conclude(proof)
        elif asked_at <= self._surveyed_at:
            self._heard = proof

    def conclude(self) -> None:
        """Take what the Sentinels have said by now.

        Raises:
            NotProven: the server is to be left.
        """
        if not self._is_surveying or self._place is None:
            return
        survey = self._owner.survey()
        if survey is not None and survey.is_conclusive(self._place):
            self._is_surveying = False
            heard, self._heard = self._heard, None
            if heard is not None:
                self._conclude(replace(heard, survey=survey))

    async def settle(self) -> None:
        """Wait for the Sentinels, and take what they say.

        Raises:
            NotProven: the server is to be left.
        """
        if self._is_surveying:
            await self._owner.wait(self._place)
            self.conclude()

    def may_lack_history(self, replication: Replication) -> bool:
        """Whether a server took over and may lack events that were confirmed before.

        Only if all replicas have confirmed each event, it has them: a primary that stalled, and comes back while one is
        promoted, may still be followed by another one.
        """
        survey = self._owner.survey()
        known = max(replication.listed, 0 if survey is None else survey.replicas)
        return bool(replication.earlier) and (not self._replicas or self._replicas < known)

    def take_refusal(self) -> NotProven | None:
        """Return, once, why the last answer was no proof; ``None`` if it was one."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def _conclude(self, proof: Proof) -> None:
        self.current_as_of = proof.current_as_of
        if proof.doubt is None:
            self._leave_after, self._in_doubt_since = _INITIAL_TIMEOUT, None
            return
        self._refusal = proof.error()
        if proof.must_be_left or self._is_overdue(proof):
            raise proof.error()

    def _is_overdue(self, proof: Proof) -> bool:
        if not proof.may_be_replaced:
            return False
        if self._in_doubt_since is None:
            self._in_doubt_since = proof.asked_at
        if proof.asked_at - self._in_doubt_since < self._leave_after:
            return False
        self._leave_after = min(2 * self._leave_after, _MAX_TIMEOUT)
        return True
