"""``jwt-events bench``: measure this library beside redis-py on a given server."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import NOT_GIVEN, Json, Url
from jwt_events.cli._running import run

if TYPE_CHECKING:
    from jwt_events.cli.bench._measurements import Result

__all__ = ["bench"]


def bench(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=300, help="How long to measure, about.")] = 10.0,
    url: Url = NOT_GIVEN,
    as_json: Json = False,
) -> None:
    """Measure publishing and handling, beside redis-py alone.

    Both take turns in one run: the ratio says what this library adds or saves on this machine; more is better for
    events/s, less for ms. redis-py moves the same bytes and does nothing else with them. It keeps the server busy
    meanwhile, with up to 70 connections, and with at most 5,000 events of 300 bytes at a time, in a stream and a
    channel of a random name. The stream is deleted in the end, whatever happens.
    """
    from jwt_events.cli.bench._measurements import Bench

    with _progress() as show:
        results = run(Bench(url, f"jwt-events:bench:{uuid.uuid4()}").run(seconds=seconds, show=show))
    if as_json:
        for result in results:
            output.record(result)
    else:
        _show(results)


def _show(results: Sequence[Result]) -> None:
    columns = ("what", "unit", "jwt_events", "redis_py", "ratio")
    output.table(
        columns,
        [(one.what, one.unit, *map(_figure, (one.jwt_events, one.redis_py)), f"{one.ratio:.2f}") for one in results],
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what is being measured on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    status = Console(stderr=True).status("")

    def show(what: str) -> None:
        status.update(what)
        status.start()  # not before there is something to show

    try:
        yield show
    finally:
        status.stop()
