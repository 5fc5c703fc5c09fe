"""A child process of the demo: ``python -m jwt_events.cli.demo issuer|service name``.

Messages come on standard input, and messages go to standard output, one on each line. The URL of the server travels on
standard input because every user of a machine can read command lines.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from jwt_events.cli.demo import _issuer, _service
from jwt_events.cli.demo._messages import Report, Setup
from jwt_events.cli.demo._processes import ParentProcess
from jwt_events.errors import JWTEventsError

_ROLES = {"issuer": _issuer.run, "service": _service.run}


async def main(role: str) -> None:
    """Run a role until it ends, or until the end of standard input."""
    parent = ParentProcess()
    listening = asyncio.create_task(parent.listen())
    working = asyncio.create_task(_work(role, parent))
    await asyncio.wait([listening, working], return_when=asyncio.FIRST_COMPLETED)
    for task in (listening, working):
        task.cancel()
    for outcome in await asyncio.gather(listening, working, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _work(role: str, parent: ParentProcess) -> None:
    setup = await parent.receive(Setup)
    try:
        await _ROLES[role](setup, parent)
    except* JWTEventsError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        parent.send(Report(final=True, error=str(error)))


if __name__ == "__main__":
    logging.getLogger("jwt_events").addHandler(logging.NullHandler())  # what goes wrong here is part of the demo
    asyncio.run(main(sys.argv[1]))
