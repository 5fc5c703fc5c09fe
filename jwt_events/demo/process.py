"""One process of the demo: ``python -m jwt_events.demo.process issuer|service name``.

What it is to do comes on standard input, and what it has to say goes to standard output, one message a line. The URL
travels on standard input because everybody on a machine can read command lines.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from jwt_events.demo import issuer, service
from jwt_events.demo.messages import Order, Report
from jwt_events.demo.parent import Parent
from jwt_events.errors import JWTEventsError

_ROLES = {"issuer": issuer.play, "service": service.play}


async def main(role: str) -> None:
    """Play a role until it is over, or until nobody holds the other end of standard input."""
    parent = Parent()
    listening = asyncio.create_task(parent.listen())
    playing = asyncio.create_task(_play(role, parent))
    await asyncio.wait([listening, playing], return_when=asyncio.FIRST_COMPLETED)
    for task in (listening, playing):
        task.cancel()
    for outcome in await asyncio.gather(listening, playing, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _play(role: str, parent: Parent) -> None:
    order = await parent.receive(Order)
    try:
        await _ROLES[role](order, parent)
    except* JWTEventsError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        parent.send(Report(final=True, error=str(error)))


if __name__ == "__main__":
    logging.getLogger("jwt_events").addHandler(logging.NullHandler())  # what goes wrong here is part of the demo
    asyncio.run(main(sys.argv[1]))
