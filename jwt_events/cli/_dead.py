"""``jwt-events dead``: list, show, replay and purge dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import DEFAULT_NAME, NOT_GIVEN, Json, Key, Url
from jwt_events.cli._options import DeadLetter as DeadLetterKey
from jwt_events.cli._running import EXIT_CODES, NO, fail, recognize, run, say
from jwt_events.errors import DecodeError, ServerRefused

if TYPE_CHECKING:
    from jwt_events.transport.dead_letters import DeadLetter, DeadLetters

app: typer.Typer = typer.Typer(
    help="Look after dead letters: events that were given up.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
)

_MAX_LISTED = 1_000
_NONE = "there are no dead letters"

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Which ones.", show_default=False)]


@app.command("list", epilog=EXIT_CODES)
def list_letters(
    *,
    after: Annotated[str | None, typer.Option(show_default=False, metavar="ID", help="Begin after this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_LISTED, help="How many at most.")] = 100,
    url: Url = NOT_GIVEN,
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
        await _tell_left_behind(dead)

    _run(work, url, key, dead_letter, filter(None, [after]))


@app.command(epilog=EXIT_CODES)
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Which one.")],
    *,
    url: Url = NOT_GIVEN,
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
            output.record(_record(letter))
        else:
            content = _summary(letter) | {
                "consumer": letter.consumer,
                "position": letter.position,
                "payload": letter.payload.decode("utf-8", "replace"),
            }
            output.table(["field", "value"], list(content.items()))

    _run(work, url, key, dead_letter, [letter_id])


@app.command(epilog=EXIT_CODES)
def replay(
    ids: Ids = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    url: Url = NOT_GIVEN,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Append the exact bytes of dead letters to the stream again, then remove the letters."""
    _check_ids(ids, every=every)

    async def work(dead: DeadLetters) -> None:
        async def replay_one(letter_id: str) -> bool | None:
            letter = await dead.get(letter_id)
            if letter is not None and letter.missing:
                say(f"too large for an event, so it is not kept whole and cannot be replayed: {letter_id}")
                return None
            positions = await dead.replay(letter_id)
            if positions:
                _report({"replayed": letter_id, "position": positions[0]}, as_json=as_json)
            return bool(positions)

        await _each(dead, ids, replay_one, done="replayed")

    _run(work, url, key, dead_letter, ids or ())


@app.command(epilog=EXIT_CODES)
def purge(
    ids: Ids = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that are there now; needs --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="I mean it.")] = False,
    url: Url = NOT_GIVEN,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Remove dead letters for good."""
    _check_ids(ids, every=every)
    if every and not yes:
        fail("--all removes every dead letter for good. Add --yes if that is meant.")

    async def work(dead: DeadLetters) -> None:
        async def purge_one(letter_id: str) -> bool:
            if removed := await dead.purge(letter_id):
                _report({"purged": letter_id}, as_json=as_json)
            return bool(removed)

        await _each(dead, ids, purge_one, done="purged")

    _run(work, url, key, dead_letter, ids or ())


@app.command("take-over", epilog=EXIT_CODES)
def take_over(
    *,
    url: Url = NOT_GIVEN,
    key: Key = None,
    dead_letter: DeadLetterKey = None,
    as_json: Json = False,
) -> None:
    """Bring here what was copied to a cluster under the name it had on one server."""

    async def work(dead: DeadLetters) -> None:
        told = {"taken_over": await dead.take_over(), "dead_letters": await dead.count()}
        if as_json:
            output.record(told)
        else:
            output.line(output.logfmt(**told))

    _run(work, url, key, dead_letter)


def _run(
    work: Callable[[DeadLetters], Awaitable[None]],
    url: str,
    key: str | None,
    dead_letter: str | None,
    ids: Iterable[str] = (),
) -> None:
    """Open the dead letters and work with them; ids that cannot be any are refused first."""
    from jwt_events.transport.dead_letters import DeadLetters, checked_id
    from jwt_events.transport.stream import RedisStream

    async def open_and_work() -> None:
        for letter_id in ids:
            checked_id(letter_id)
        stream = RedisStream(url, key or DEFAULT_NAME, dead_letter=dead_letter)
        await recognize(stream.connector)
        async with DeadLetters(stream) as dead:
            await work(dead)

    run(open_and_work())


async def _tell_left_behind(dead: DeadLetters) -> None:
    """Tell of dead letters that were copied to a cluster under the name they had on one server."""
    try:
        if left := await dead.left_behind():
            say(f"{left} more lie in {dead.left_behind_key!r}; 'jwt-events dead take-over' brings them here")
    except ServerRefused as error:
        say(f"it is unknown whether more lie in {dead.left_behind_key!r}: {error}")


def _check_ids(ids: Sequence[str] | None, *, every: bool) -> None:
    if bool(ids) == every:
        fail("name the dead letters by ID, or all of them by --all. 'jwt-events dead list' lists them.")


async def _each(
    dead: DeadLetters, ids: Sequence[str] | None, act: Callable[[str], Awaitable[bool | None]], *, done: str
) -> None:
    """Act on some dead letters, or on all and then print how many; exit with 1 if not all could be acted on.

    Args:
        dead: the dead letters.
        ids: which; ``None`` for all.
        act: acts on one, and returns whether it was there; ``None`` if it was, and nothing could be done.
        done: what is done to them.
    """
    chosen = ids or await _all(dead)
    missing: list[str] = []
    count = 0
    try:
        for letter_id in chosen:
            match await act(letter_id):
                case True:
                    count += 1
                case False:
                    missing.append(letter_id)
    finally:  # also when the server fails, or a signal ends it
        if chosen and not ids:
            say(f"{done}: {count} of {len(chosen)}")
    _missing(missing)
    if count < len(chosen):
        raise typer.Exit(NO)


async def _all(dead: DeadLetters) -> list[str]:
    """Return the ids of all dead letters that are there now, so that later ones do not keep a command busy."""
    found: list[str] = []
    while letters := await dead.list(after=found[-1] if found else None, limit=_MAX_LISTED):
        found.extend(letter.id for letter in letters)
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


def _record(letter: DeadLetter) -> dict[str, Any]:
    """Return the fields of a dead letter under their names in JSON."""
    fields = asdict(letter)
    return fields | {"buried_at": fields.pop("dead_lettered_at")}


def _report(done: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        output.record(done)
    else:
        output.line(output.logfmt(**done))


def _missing(ids: Sequence[str]) -> None:
    """Exit with 1 if some dead letters were not there."""
    if ids:
        say(f"no such dead letter: {', '.join(ids)}. 'jwt-events dead list' lists those that are there.")
        raise typer.Exit(NO)
