"""What a demo can fail with."""

from __future__ import annotations

from jwt_events.errors import JWTEventsError


class DemoFailed(JWTEventsError):
    """The demo could not be carried out; the message says why."""
