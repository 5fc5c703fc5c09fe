"""Errors of a server that is too old name the version that is needed."""

from __future__ import annotations

import pytest
from redis import exceptions

from jwt_events.errors import ServerRefused
from jwt_events.transport._redis.replies import map_error


@pytest.mark.parametrize("reply", ["unknown command 'XAUTOCLAIM', with args beginning with: 'k'", "syntax error"])
def test_the_version_that_is_needed_is_named(reply: str) -> None:
    """The error names the command, the server and the version that is needed, and quotes no argument."""
    error = map_error(exceptions.ResponseError(reply), "XAUTOCLAIM at 127.0.0.1:1 for 'k'", secrets=[], maybe_done=True)
    assert isinstance(error, ServerRefused)
    assert not error.retryable
    assert str(error).startswith("XAUTOCLAIM at 127.0.0.1:1 for 'k' refused: ERR ")
    assert str(error).endswith("Redis 6.2 or newer is needed, or Valkey")
    assert "args" not in str(error)
