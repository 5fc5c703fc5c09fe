"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.restarting import MakeServer, Restartable


@pytest.fixture
async def restartable(own_server: MakeServer, tmp_path: Path) -> AsyncIterator[Restartable]:
    """A server that is not started yet."""
    server = Restartable(own_server, tmp_path)
    yield server
    await server.kill()
