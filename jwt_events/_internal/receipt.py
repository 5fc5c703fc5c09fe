"""The receipt of a published event, and what is known about where the event is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import msgspec


@dataclass(frozen=True, slots=True)
class Propagation:
    """Where an event is in force, as far as the publisher waited for it.

    An instance of a service is named ``service/instance``.

    Attributes:
        by: how it is known: ``"lease"``, because the time has passed for which any list may rely on its last proof; or
            ``"fleet"``, because the instances said so.
        as_of: when that was, by this machine's clock.
        acknowledged: the instances that said that they have applied the event.
        expired: the instances whose lease has ended without their saying so: each has applied the event or refuses all
            tokens.
        unsafe: the instances whose lists are opened with ``on_stale="allow"``, whether they have applied it or not.
        missing: the instances of such lists that have not said that they applied it; and the services that were asked
            for, of which no instance was registered.
    """

    by: str
    as_of: datetime
    acknowledged: Sequence[str] = ()
    expired: Sequence[str] = ()
    unsafe: Sequence[str] = ()
    missing: Sequence[str] = ()

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing: no list that is known lets a token in that the event revokes."""
        return not self.missing


# A struct, as there is one for each event, and that is made in a quarter of the time. The functions of `dataclasses`
# accept it, too, and so does what serializes dataclasses.
@dataclass(frozen=True, init=False, repr=False, eq=False, match_args=False)
class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Confirmation that the server accepted an event.

    pydantic and FastAPI serialize it; they cannot read it: ``Receipt(**values)`` does.

    Attributes:
        event_id: the event's id.
        position: where in the stream; ``None`` on a transport without positions.
        receivers: how many connections the server handed it to; ``None`` where nothing counts them. It is no
            acknowledgement.
        replicas: how many replicas of the server have it, if the transport waits for any (``replicas=``).
        propagation: where it is in force, if the publisher was asked to wait for that; else ``None``.
    """

    event_id: str
    position: str | None = None
    receivers: int | None = None
    replicas: int | None = None
    propagation: Propagation | None = None


for _field in fields(Receipt)[1:]:
    _field.default = None  # which the decorator cannot see, as a struct keeps its defaults elsewhere
