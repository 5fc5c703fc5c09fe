"""Tools for tests of programs that use this library, without a server and without sleeping.

::

    from jwt_events.testing import FaultyTransport, ManualClock, RecordingPublisher, eventually

``pytest_plugins = ["jwt_events.testing.plugin"]`` provides pytest fixtures, and `jwt_events.testing.conformance` is a
test suite for your own transport. Only these two import pytest.
"""

from jwt_events.testing._faults import Faults
from jwt_events.testing._faulty import FaultyTransport
from jwt_events.testing._listener import Listener
from jwt_events.testing._manual import ManualClock
from jwt_events.testing._receiver_cases import ReceiverCase, receiver_cases
from jwt_events.testing._recording import RecordingPublisher
from jwt_events.testing._transmitter import Transmitter
from jwt_events.testing._waiting import eventually, scaled

__all__ = [
    "Faults",
    "FaultyTransport",
    "Listener",
    "ManualClock",
    "ReceiverCase",
    "RecordingPublisher",
    "Transmitter",
    "eventually",
    "receiver_cases",
    "scaled",
]
