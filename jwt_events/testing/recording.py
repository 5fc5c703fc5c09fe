"""A publisher that keeps what was published, for tests of code that publishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from jwt_events.errors import InvalidOption, PublishError, PublishFailed, PublishOutcomeUnknown
from jwt_events.events import Event
from jwt_events.publisher import Publisher, Receipt
from jwt_events.testing.faulty import FaultyTransport
from jwt_events.transport.base import Transport
from jwt_events.transport.memory import MemoryTransport

_E = TypeVar("_E", bound=Event)


class RecordingPublisher(Publisher):
    """A `Publisher` that keeps what was published, in order. Pass it where a publisher is expected.

    ::

        publisher = RecordingPublisher()
        await log_out(publisher, user)
        publisher.assert_published(TokenRevoked, user_id="alice", reason="logout")

    What a publisher refuses, this one refuses, too: an event that is too large, or any after it was closed. It need not
    be closed. Failures show values as they are, unlike logs and errors: they are those of tests.

    Args:
        transport: where to publish as well; ``None`` for nowhere.
        source: as for `Publisher`.

    Attributes:
        published: the events that were accepted, as they were given.
    """

    def __init__(self, transport: Transport | None = None, *, source: str | None = "tests") -> None:
        faulty = FaultyTransport(MemoryTransport() if transport is None else transport)
        super().__init__(faulty, source=source)
        self._faults = faulty.faults
        self.published: list[Event] = []

    def __del__(self) -> None:
        """Do not complain: a test need not close it."""

    def fail_next(self, error: type[PublishFailed | PublishOutcomeUnknown] = PublishFailed, *, number: int = 1) -> None:
        """Do not publish the next events; they are not kept.

        Args:
            error: what is raised instead.
            number: how many events.

        Raises:
            InvalidOption: it is another error.
        """
        if error is PublishFailed:
            self._faults.refuse(number)
        elif error is PublishOutcomeUnknown:
            self._faults.leave_unknown(number, arrives=False)
        else:
            raise InvalidOption("error", "must be PublishFailed or PublishOutcomeUnknown")

    def assert_published(self, kind: type[_E], /, **fields: object) -> _E:
        """Return the first event of this class whose fields have these values.

        Raises:
            AssertionError: there is none. It shows, with all values, what was published instead, and how it differs.
            InvalidOption: such events have no such field, so the question makes no sense.
        """
        _check_fields(kind, fields)
        for event in self.published:
            if isinstance(event, kind) and not _differences(event, fields):
                return event
        raise AssertionError(f"no {_shown(kind, fields)} was published; {self._told(kind, fields)}")

    def assert_not_published(self, kind: type[Event] = Event, /, **fields: object) -> None:
        """Fail if an event of this class was published whose fields have these values; without arguments, any event.

        Raises:
            AssertionError: there is one.
            InvalidOption: such events have no such field, so the question makes no sense.
        """
        _check_fields(kind, fields)
        for number, event in enumerate(self.published, start=1):
            if isinstance(event, kind) and not _differences(event, fields):
                raise AssertionError(f"number {number} of those published is {_shown(type(event), _given(event))}")

    def clear(self) -> None:
        """Forget what was published so far."""
        self.published.clear()

    async def _publish(self, events: Sequence[Event], timeout: float | None) -> list[Receipt]:
        try:
            receipts = await super()._publish(events, timeout)
        except PublishError as error:
            self._keep(events, error.receipts)
            raise
        self._keep(events, receipts)
        return receipts

    def _keep(self, events: Sequence[Event], receipts: Sequence[Receipt]) -> None:
        accepted = {receipt.event_id for receipt in receipts}
        self.published += [event for event in events if event.id in accepted]

    def _told(self, kind: type[Event], fields: dict[str, object]) -> str:
        if not self.published:
            return "nothing was"
        lines = ["published were:"]
        for number, event in enumerate(self.published, start=1):
            line = f"  {number}. {_shown(type(event), _given(event))}"
            if isinstance(event, kind):
                line += f"\n     differs in {', '.join(_differences(event, fields))}"
            lines.append(line)
        return "\n".join(lines)


def _check_fields(kind: type[Event], fields: dict[str, object]) -> None:
    if unknown := fields.keys() - kind.model_fields.keys():
        raise InvalidOption("fields", f"{kind.__name__} has no {', '.join(sorted(unknown))}")


def _differences(event: Event, fields: dict[str, object]) -> list[str]:
    return [name for name, value in fields.items() if getattr(event, name) != value]


def _given(event: Event) -> dict[str, object]:
    """Return what somebody gave the event: no defaults, and no id and time that were made for it."""
    return {name: getattr(event, name) for name in type(event).model_fields if name in event.model_fields_set}


def _shown(kind: type[Event], fields: dict[str, object]) -> str:
    return f"{kind.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
