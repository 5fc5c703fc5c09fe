"""Pytest fixtures. Load the plugin in a test module or in the topmost ``conftest.py``.

::

    pytest_plugins = ["jwt_events.testing.plugin"]

==========================  ====================================================================================
``jwt_events_transport``    a `FaultyTransport` over a `MemoryTransport`; share it between the parts under test
``jwt_events_faults``       its `Faults`
``jwt_events_publisher``    a `RecordingPublisher` that publishes to it
``jwt_events_clock``        a `ManualClock`
``jwt_events_revocations``  a `RevocationList` on both; enter it: ``async with jwt_events_revocations:``
==========================  ====================================================================================

No fixture is asynchronous, so they work with every plugin for asynchronous tests.
"""

from __future__ import annotations

import pytest

from jwt_events.revocation import RevocationList
from jwt_events.testing._faults import Faults
from jwt_events.testing._faulty import FaultyTransport
from jwt_events.testing._manual import ManualClock
from jwt_events.testing._recording import RecordingPublisher
from jwt_events.transport.memory import MemoryTransport

# Failures then show the values. This must run before these modules are imported.
pytest.register_assert_rewrite("jwt_events.testing.conformance", "jwt_events.testing._poison")


@pytest.fixture
def jwt_events_transport() -> FaultyTransport:
    """Transport in memory, on which a test can inject faults."""
    return FaultyTransport(MemoryTransport())


@pytest.fixture
def jwt_events_faults(jwt_events_transport: FaultyTransport) -> Faults:
    """Faults of the transport."""
    return jwt_events_transport.faults


@pytest.fixture
def jwt_events_publisher(jwt_events_transport: FaultyTransport) -> RecordingPublisher:
    """Publisher on the transport that records the published events."""
    return RecordingPublisher(jwt_events_transport)


@pytest.fixture
def jwt_events_clock() -> ManualClock:
    """Clock that stands still until it is advanced."""
    return ManualClock()


@pytest.fixture
def jwt_events_revocations(jwt_events_transport: FaultyTransport, jwt_events_clock: ManualClock) -> RevocationList:
    """Revocation list on the transport and the clock, not yet entered."""
    return RevocationList(jwt_events_transport, clock=jwt_events_clock)
