"""A contender's process: ``python -m bench.contend ROW CONTENDER work|partner``.

Reads a place from each line, and answers with a run on a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict

from bench.rows import named
from bench.run import Failed, Place, Run, Work


async def run_once(work: Work, place: Place) -> Run:
    """Do the work once. Whatever goes wrong is the contender's result."""
    try:
        return await work(place)
    except Exception as error:  # noqa: BLE001 - of somebody else's code, and it is to be told
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return Run(problem=str(first) if isinstance(first, Failed) else f"{type(first).__name__}: {first}"[:120])


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - only if asked for

    return uvloop.new_event_loop


def main() -> None:
    """Answer until there are no more questions."""
    row, name, part = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    warnings.simplefilter("ignore")
    logging.disable()
    found = next(one for one in named(row).contenders if one.name == name)
    start = found.partner if part == "partner" else found.start
    assert start is not None
    work = start()
    for line in sys.stdin:
        if (question := json.loads(line)) == "ready?":
            print("true", file=answers)
            continue
        place = Place(**question)
        with asyncio.Runner(loop_factory=loop_factory(place.loop)) as runner:
            print(json.dumps(asdict(runner.run(run_once(work, place)))), file=answers)


if __name__ == "__main__":
    main()
