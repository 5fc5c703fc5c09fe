"""``jwt-events dead``: look after what was given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import output
from jwt_events.cli.options import DEFAULT_NAME, NOT_SAID, Json, Key, Url
from jwt_events.cli.options import DeadLetter as DeadLetterKey
from jwt_events.cli.running import EXIT_CODES, NO, carry_out, fail, say
from jwt_events.cli.wording import fields
from jwt_events.errors import DecodeError

if TYPE_CHECKING:
    from jwt_events.transport.dead_letters import DeadLetter, DeadLetters

app: typer.Typer = typer.Typer(
    help="Look after dead letters: events that were given up.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
)

_PAGE = 1_000
_NONE = "there are no dead letters"

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Which ones.", show_default=False)]


@app.command("list", epilog=EXIT_CODES)
def list_letters(
    *,
    after: Annotated[str | None, typer.Option(show_default=False, metavar="ID", help="Begin after this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many at most.")] = 100,
    url: Url = NOT_SAID,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first."""

    async def work(dead: DeadLetters) -> None:
        rows = [_summary(letter) for letter in await dead.list(after=after, limit=limit)]
        if not rows:
            say(_NONE if after is None else f"{_NONE} after {after}")
        elif as_json:
            for row in rows:
                output.record(row)
        else:
            output.table(list(rows[0]), [list(row.values()) for row in rows])
        if rows and await dead.list(after=rows[-1]["id"], limit=1):
            say(f"there are more; go on with --after {rows[-1]['id']}")

    _with(work, url, key, dead_letter)


@app.command(epilog=EXIT_CODES)
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Which one.")],
    *,
    url: Url = NOT_SAID,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter with its payload. Identifiers are shown as they are, whole tokens never."""

    async def work(dead: DeadLetters) -> None:
        letter = await dead.get(letter_id)
        if letter is None:
            _missing([letter_id])
        elif as_json:
            output.record(letter)
        else:
            content = _summary(letter) | {
                "consumer": letter.consumer,
                "position": letter.position,
                "payload": letter.payload.decode("utf-8", "replace"),
            }
            output.table(["field", "value"], list(content.items()))

    _with(work, url, key, dead_letter)


@app.command(epilog=EXIT_CODES)
def replay(
    ids: Ids = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    url: Url = NOT_SAID,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Append the exact bytes of dead letters to the stream again, then remove the letters."""
    _check(ids, every=every)

    async def work(dead: DeadLetters) -> None:
        missing = []
        for letter_id in ids or await _all(dead):
            if positions := await dead.replay(letter_id):
                _tell({"replayed": letter_id, "position": positions[0]}, as_json=as_json)
            else:
                missing.append(letter_id)
        _missing(missing)

    _with(work, url, key, dead_letter)


@app.command(epilog=EXIT_CODES)
def purge(
    ids: Ids = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are there now; needs --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="I mean it.")] = False,
    url: Url = NOT_SAID,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Remove dead letters for good."""
    _check(ids, every=every)
    if every and not yes:
        fail("--all removes every dead letter for good. Add --yes if that is meant.")

    async def work(dead: DeadLetters) -> None:
        missing = []
        for letter_id in ids or await _all(dead):
            if await dead.purge(letter_id):
                _tell({"purged": letter_id}, as_json=as_json)
            else:
                missing.append(letter_id)
        _missing(missing)

    _with(work, url, key, dead_letter)


def _with(work: Callable[[DeadLetters], Awaitable[None]], url: str, key: str | None, dead_letter: str | None) -> None:
    from jwt_events.transport.dead_letters import DeadLetters
    from jwt_events.transport.stream import RedisStream

    async def run() -> None:
        async with DeadLetters(RedisStream(url, key or DEFAULT_NAME, dead_letter=dead_letter)) as dead:
            await work(dead)

    carry_out(run())


def _check(ids: Sequence[str] | None, *, every: bool) -> None:
    if bool(ids) == every:
        fail("name the dead letters by ID, or all of them by --all. 'jwt-events dead list' lists them.")


async def _all(dead: DeadLetters) -> list[str]:
    """Return the ids of all that are there now: what is buried meanwhile must not make it endless."""
    found: list[str] = []
    while page := await dead.list(after=found[-1] if found else None, limit=_PAGE):
        found.extend(letter.id for letter in page)
    if not found:
        say(_NONE)
    return found


def _summary(letter: DeadLetter) -> dict[str, Any]:
    from jwt_events.envelope import decode

    try:
        event = decode(letter.payload).event
    except DecodeError:
        event = None
    return {
        "id": letter.id,
        "buried_at": letter.dead_lettered_at,
        "type": None if event is None else str(event.type),
        "event_id": None if event is None else event.id,
        "handler": letter.handler,
        "attempts": letter.attempts,
        "error": letter.error,
    }


def _tell(done: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        output.record(done)
    else:
        output.line(fields(**done))


def _missing(ids: Sequence[str]) -> None:
    """End with 1 if some were not there."""
    if ids:
        say(f"no such dead letter: {', '.join(ids)}. 'jwt-events dead list' lists those that are there.")
        raise typer.Exit(NO)
