"""For tests of programs that use this library: no server, no sleeping, no guessing.

::

    from jwt_events.testing import FaultyTransport, ManualClock, RecordingPublisher, eventually

Ready-made pytest fixtures come with ``pytest_plugins = ["jwt_events.testing.plugin"]``, and somebody's own transport is
put to the test by `jwt_events.testing.conformance`. Only these two import pytest.
"""

from jwt_events.testing.faults import Faults
from jwt_events.testing.faulty import FaultyTransport
from jwt_events.testing.listener import Listener
from jwt_events.testing.manual import ManualClock
from jwt_events.testing.recording import RecordingPublisher
from jwt_events.testing.waiting import eventually, scaled

__all__ = ["Faults", "FaultyTransport", "Listener", "ManualClock", "RecordingPublisher", "eventually", "scaled"]
