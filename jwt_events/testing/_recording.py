"""Publisher that records the published events, for tests of code that publishes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from jwt_events.errors import InvalidOption, PublishError, PublishFailed, PublishOutcomeUnknown
from jwt_events.events import Event
from jwt_events.fleet import InForce, Propagation
from jwt_events.publisher import Publisher, Receipt
from jwt_events.testing._faulty import FaultyTransport
from jwt_events.transport.base import Transport
from jwt_events.transport.memory import MemoryTransport

_E = TypeVar("_E", bound=Event)


class RecordingPublisher(Publisher):
    """`Publisher` that records the published events in order. Pass it where a publisher is expected.

    ::

        publisher = RecordingPublisher()
        await log_out(publisher, user)
        publisher.assert_published(TokenRevoked, user_id="alice", reason="logout")

    It raises the same errors as a publisher, for example for an event that is too large or after it was closed. It need
    not be closed. Unlike logs and errors, assertion failures show values, as these come from tests.

    Args:
        transport: transport that also gets the events; ``None`` means none.
        source: see `Publisher`.

    Attributes:
        published: the accepted events, as they were passed.
    """

    def __init__(self, transport: Transport | None = None, *, source: str | None = "tests") -> None:
        faulty = FaultyTransport(MemoryTransport() if transport is None else transport)
        super().__init__(faulty, source=source)
        self._faults = faulty.faults
        self.published: list[Event] = []

    def __del__(self) -> None:
        """Suppress the warning of `Publisher`: a test need not close it."""

    def fail_next(self, error: type[PublishFailed | PublishOutcomeUnknown] = PublishFailed, *, count: int = 1) -> None:
        """Make publishing the next events fail; they are not recorded.

        Args:
            error: exception to raise.
            count: number of events.

        Raises:
            InvalidOption: ``error`` is another class.
        """
        if error is PublishFailed:
            self._faults.refuse(count)
        elif error is PublishOutcomeUnknown:
            self._faults.leave_unknown(count, arrives=False)
        else:
            raise InvalidOption("error", "must be PublishFailed or PublishOutcomeUnknown")

    def assert_published(self, kind: type[_E], /, **fields: object) -> _E:
        """Return the first published event of this class whose fields have these values.

        Raises:
            AssertionError: there is none. The message lists the published events with their values and differences.
            InvalidOption: the class has no such field.
        """
        _check_fields(kind, fields)
        for event in self.published:
            if isinstance(event, kind) and not _differences(event, fields):
                return event
        raise AssertionError(f"no {_format_event(kind, fields)} was published; {self._summary(kind, fields)}")

    def assert_not_published(self, kind: type[Event] = Event, /, **fields: object) -> None:
        """Fail if an event of this class with these field values was published; without arguments, if any event was.

        Raises:
            AssertionError: there is one.
            InvalidOption: the class has no such field.
        """
        _check_fields(kind, fields)
        for number, event in enumerate(self.published, start=1):
            if isinstance(event, kind) and not _differences(event, fields):
                raise AssertionError(
                    f"number {number} of those published is {_format_event(type(event), _explicit_fields(event))}"
                )

    def clear(self) -> None:
        """Clear the record of published events."""
        self.published.clear()

    async def _publish(self, events: Sequence[Event], timeout: float | None, *, confirm: bool = False) -> list[Receipt]:
        try:
            receipts = await super()._publish(events, timeout, confirm=confirm)
        except PublishError as error:
            self._record(events, error.receipts)
            raise
        self._record(events, receipts)
        return receipts

    async def _propagate(self, in_force: InForce, receipts: Sequence[Receipt]) -> Propagation:
        return Propagation("lease", datetime.now(UTC))  # there is no list to wait for

    def _record(self, events: Sequence[Event], receipts: Sequence[Receipt]) -> None:
        accepted = {receipt.event_id for receipt in receipts}
        self.published += [event for event in events if event.id in accepted]

    def _summary(self, kind: type[Event], fields: dict[str, object]) -> str:
        if not self.published:
            return "nothing was"
        lines = ["published were:"]
        for number, event in enumerate(self.published, start=1):
            line = f"  {number}. {_format_event(type(event), _explicit_fields(event))}"
            if isinstance(event, kind):
                line += f"\n     differs in {', '.join(_differences(event, fields))}"
            lines.append(line)
        return "\n".join(lines)


def _check_fields(kind: type[Event], fields: dict[str, object]) -> None:
    if unknown := fields.keys() - kind.model_fields.keys():
        raise InvalidOption("fields", f"{kind.__name__} has no {', '.join(sorted(unknown))}")


def _differences(event: Event, fields: dict[str, object]) -> list[str]:
    return [name for name, value in fields.items() if getattr(event, name) != value]


def _explicit_fields(event: Event) -> dict[str, object]:
    """Return the fields that were set explicitly, without defaults, generated ids and times."""
    return {name: getattr(event, name) for name in type(event).model_fields if name in event.model_fields_set}


def _format_event(kind: type[Event], fields: dict[str, object]) -> str:
    return f"{kind.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
