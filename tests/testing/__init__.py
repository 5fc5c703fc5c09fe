"""Tests of `jwt_events.testing` and the embedded server."""
