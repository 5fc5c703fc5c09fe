"""A competitor's worker process: ``python -m bench.worker ROW COMPETITOR first|second``.

Reads `RunParams` as a line of JSON, replies with a `Run` as a line of JSON, and exits at the end of its input.
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
from bench.run import Failed, Run, RunParams, Workload


async def run_once(workload: Workload, params: RunParams) -> Run:
    """Run a workload once; any exception becomes the problem of the run."""
    try:
        return await workload(params)
    except Exception as error:  # noqa: BLE001 - other libraries may raise anything, and the table shows it
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return Run(problem=str(first) if isinstance(first, Failed) else f"{type(first).__name__}: {first}"[:120])


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of an event loop: ``asyncio`` or ``uvloop``."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - an optional dependency

    return uvloop.new_event_loop


def main() -> None:
    """Serve requests from standard input until it ends."""
    row, name, part = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print, and replies have the old descriptor to themselves
    warnings.simplefilter("ignore")
    logging.disable()
    competitor = next(one for one in named(row).competitors if one.name == name)
    start = competitor.start_second if part == "second" else competitor.start
    assert start is not None
    workload = start()
    for line in sys.stdin:
        if (request := json.loads(line)) == "ready?":
            print("true", file=replies)
            continue
        params = RunParams(**request)
        with asyncio.Runner(loop_factory=loop_factory(params.loop)) as runner:
            print(json.dumps(asdict(runner.run(run_once(workload, params)))), file=replies)


if __name__ == "__main__":
    main()
