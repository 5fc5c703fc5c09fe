"""``jwt-events ledger``: show the ledger of a stream, fold now, remove a wrong rule."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import DEFAULT_NAME, NOT_GIVEN, Json, Key, Ledger, Url
from jwt_events.cli._output import approximate
from jwt_events.cli._running import EXIT_CODES, NO, fail, recognize, run, say

if TYPE_CHECKING:
    from jwt_events.transport.ledger import LedgerAccess

app: typer.Typer = typer.Typer(
    help="Look after the ledger: the rules of trimmed events.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
    invoke_without_command=True,
)

_NO_RULE = "no rule"
_FOREIGN_LOCK = "; its lock is held by no publisher, so publishers wait: 'jwt-events ledger fold' ends that"
_ENDS_WITHIN = (3_600, 86_400, 7 * 86_400, 30 * 86_400)


@app.callback()
def show(
    context: typer.Context,
    *,
    name: Ledger = None,
    url: Url = NOT_GIVEN,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show rules by kind, when they end, the size, up to where the stream is folded, and what is missing.

    Ends with 1 if there is no ledger, or events were removed that were not folded.
    """
    if context.invoked_subcommand is not None:
        return

    async def work(ledger: LedgerAccess) -> dict[str, Any]:
        summary = await ledger.summary()
        kinds, ends = await _counts(ledger, summary.clock)
        return asdict(summary) | {"rules": dict(sorted(kinds.items())), "ends": ends}

    found = _run(work, url, key, name)
    if as_json:
        output.record(found)
    else:
        output.table(("field", "value"), list(_for_people(found).items()))
    if not found["exists"] or found["lost"] != 0:
        raise typer.Exit(NO)


@app.command(epilog=EXIT_CODES)
def fold(*, name: Ledger = None, url: Url = NOT_GIVEN, key: Key = None, as_json: Json = False) -> None:
    """Fold now what no publisher keeps any more, and trim it. Ends with 1 if a publisher folds at this moment."""

    async def work(ledger: LedgerAccess) -> int | None:
        from jwt_events.revocation import Folding

        return await ledger.fold(Folding())

    folded = _run(work, url, key, name)
    if folded is None:
        say("a publisher folds at this moment, or did within the last half minute; try again then")
        raise typer.Exit(NO)
    if as_json:
        output.record({"folded": folded})
    else:
        output.line(f"folded: {output.counted(folded, 'event')}")


@app.command(epilog=EXIT_CODES)
def remove(
    *,
    token_id: Annotated[str | None, typer.Option(show_default=False, help="The rules about this token.")] = None,
    session_id: Annotated[str | None, typer.Option(show_default=False, help="The rules about this session.")] = None,
    user_id: Annotated[
        str | None, typer.Option(show_default=False, help="The rules about this user; with --client-id, there.")
    ] = None,
    client_id: Annotated[str | None, typer.Option(show_default=False, help="The rules about this client.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="The rule about all tokens.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it is logged.")],
    name: Ledger = None,
    url: Url = NOT_GIVEN,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Take back a mistake: remove the rules about one identifier from the ledger.

    Lists that run keep such a rule until they start again: nothing un-revokes. Ends with 1 if there is no such rule, or
    if an event in the stream would put it into the ledger again: then remove it when that event was folded.
    """
    is_wrong = _matcher(token_id, session_id, user_id, client_id, everyone=everyone)
    if not reason.strip():
        fail("--reason is empty: say why the rule is wrong")

    async def work(ledger: LedgerAccess) -> tuple[int, int]:
        from jwt_events.revocation import Folding

        if there := await ledger.in_stream(Folding(), is_wrong):
            return 0, there
        return await ledger.remove(is_wrong, reason=reason), 0

    removed, there = _run(work, url, key, name)
    if there:
        say(f"nothing removed: the stream says the same in {output.counted(there, 'event')}; wait until that is folded")
        raise typer.Exit(NO)
    if not removed:
        say("there is no such rule in the ledger")
        raise typer.Exit(NO)
    if as_json:
        output.record({"removed": removed, "reason": reason})
    else:
        output.line(output.logfmt(removed=removed, reason=reason))
    say("lists that run keep the rule until they start again")


def _matcher(
    token_id: str | None, session_id: str | None, user_id: str | None, client_id: str | None, *, everyone: bool
) -> Callable[[bytes, float], bool]:
    """Return what tells the rules about one identifier from all others."""
    from jwt_events.revocation import ForeignEntry, rule_of

    names: dict[str, tuple[str | None, ...]] = {
        "token": (token_id,),
        "session": (session_id,),
        "user_at_client": (user_id, client_id),
        "user": (user_id,) if client_id is None else (None,),
        "client": (client_id,) if user_id is None else (None,),
    }
    chosen = {kind: found for kind, found in names.items() if None not in found}
    if everyone:
        chosen["everyone"] = ()
    if len(chosen) != 1:
        fail("name one of --token-id, --session-id, --user-id, --client-id, --user-id with --client-id, --everyone")

    def is_wrong(content: bytes, until: float) -> bool:
        try:
            rule, _ = rule_of(content, until)
        except ForeignEntry:
            return False
        return chosen.get(rule.kind) == rule.names

    return is_wrong


async def _counts(ledger: LedgerAccess, now: float) -> tuple[Counter[str], dict[str, int]]:
    """Return how many rules there are of each kind, and how many end within some times."""
    from jwt_events.revocation import count_kinds

    kinds: Counter[str] = Counter()
    ends = {approximate(seconds): 0 for seconds in _ENDS_WITHIN}
    async for batch in ledger.entries():
        found, foreign = count_kinds(batch)
        kinds.update(found)
        kinds[_NO_RULE] += foreign
        times = sorted(until for _, until in batch)
        for seconds in _ENDS_WITHIN:
            ends[approximate(seconds)] += bisect_right(times, now + seconds)
    return +kinds, ends


def _for_people(found: dict[str, Any]) -> dict[str, object]:
    oldest = found["oldest"]
    age = None if oldest is None else approximate(max(0.0, found["clock"] - int(oldest.partition("-")[0]) / 1000))
    lost_at = found["lost_at"]
    size, entries = found["bytes"], found["entries"]
    return {
        "ledger": found["key"] if found["exists"] else f"{found['key']} is not there",
        **{f"rules: {kind}": count for kind, count in found["rules"].items()},
        **({"to be taken over": found["to_be_taken_over"]} if found["to_be_taken_over"] else {}),
        "rules without an end": found["endless"],
        **{f"end within {time}": count for time, count in found["ends"].items()},
        "size": size if not size or not entries else f"{size} bytes, {size / entries:.0f} an entry",
        "folded up to": found["folded_up_to"],
        "oldest event": None if age is None else f"{age} old, of {found['events']}",
        "folds now": "yes" if found["is_folding"] else "no" + _FOREIGN_LOCK * found["lock_is_foreign"],
        "removed unfolded": "unknown" if found["lost"] is None and found["exists"] else found["lost"],
        "found at": None if lost_at is None else datetime.fromtimestamp(lost_at, UTC),
    }


def _run(work: Callable[[LedgerAccess], Any], url: str, key: str | None, name: str | None) -> Any:
    from jwt_events.transport.ledger import LedgerAccess
    from jwt_events.transport.stream import RedisStream

    async def recognize_and_work() -> Any:
        stream = RedisStream(url, key or DEFAULT_NAME, ledger=name)
        await recognize(stream.connector)
        return await work(LedgerAccess(stream))

    return run(recognize_and_work())
