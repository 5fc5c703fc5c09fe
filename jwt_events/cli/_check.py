"""``jwt-events check``: look up whether a token is revoked."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import DEFAULT_NAME, NOT_GIVEN, Json, Key, Ledger, Retention, Url, duration
from jwt_events.cli._running import NO, STALE, fail, run, say
from jwt_events.errors import InvalidClaims, InvalidOption

if TYPE_CHECKING:
    from jwt_events.events import ClaimNames
    from jwt_events.revocation import Explanation, RevocationList
    from jwt_events.transport.stream import RedisStream

_MAX_INPUT_BYTES = 65_536

_WITHIN = 5.0

_CODES = {"allow": 0, "revoked": NO, "stale": STALE}


def check(
    *,
    max_staleness: Annotated[float, typer.Option(help="Seconds for which a proof of being current is good.")] = 5.0,
    leeway: Annotated[float, typer.Option(help="Seconds by which the clocks of issuers may be ahead.")] = 0.0,
    claim_names: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            metavar="ROLE=CLAIM,…",
            help="Names of claims, as in user=user_id,client=app.",
        ),
    ] = None,
    retention: Retention = "1d",
    url: Url = NOT_GIVEN,
    key: Key = None,
    ledger: Ledger = None,
    as_json: Json = False,
) -> None:
    """Say whether a token is revoked, and by which rule. Standard input holds its claims as JSON, or the token.

    A token is decoded, not verified: this is about revocation and about nothing else, neither signature nor exp. It
    is never taken from an argument, which every user of this machine could read, and never shown. Ends with 0 if a
    service would let it in, 1 if it is revoked, 2 if it names nothing that could be revoked, 3 if that is unknown.
    A stream without a single event is reported on standard error: its name may be wrong.
    """
    from jwt_events.revocation import RevocationList
    from jwt_events.transport.stream import RedisStream

    names = claim_names_from(claim_names or "")
    claims = _claims_from_input()
    stream = RedisStream(url, key or DEFAULT_NAME, retention=duration("retention", retention), ledger=ledger)
    revocations = RevocationList(stream, max_staleness=max_staleness, leeway=leeway, claim_names=names)
    explanation = run(_explain(stream, revocations, claims))
    if explanation.rule is None:
        _require_an_identifier(claims, names)
    _show(explanation, as_json=as_json)
    raise typer.Exit(_CODES[explanation.verdict])


async def _explain(stream: RedisStream, revocations: RevocationList, claims: Mapping[str, object]) -> Explanation:
    async with revocations:
        if not revocations.stats.events:
            await _warn_of_no_events(stream)
        return revocations.explain(claims)


async def _warn_of_no_events(stream: RedisStream) -> None:
    """Say it if there is no such stream, or if it holds nothing but entries of another program."""
    from jwt_events.transport.stream import stream_info

    async with aclosing(await stream.connector.connect(within=_WITHIN)) as connection:
        (reply,) = await connection.execute_many([("XINFO", "STREAM", stream.destination)], within=_WITHIN)
    state = stream_info(reply)
    if state is None:
        say(f"there is no stream {stream.destination!r} yet, so nothing is revoked. Is --key that of the publishers?")
    elif state.length:
        say(f"no entry of the stream {stream.destination!r} is an event. Is --key that of the publishers?")


def _require_an_identifier(claims: Mapping[str, object], names: ClaimNames) -> None:
    """End with 2 if the claims have no identifier: that no rule covers them does not say that they are good."""
    identifiers = (names.token, names.user, names.session, *names.clients, "kid")
    if all(claims.get(name) in (None, "") for name in identifiers):
        fail(f"standard input: the claims name nothing that could be revoked: none of {', '.join(identifiers)}.")


def _show(explanation: Explanation, *, as_json: bool) -> None:
    verdict, rule, staleness = explanation
    content = {
        "verdict": verdict.value,
        "rule": None if rule is None else rule.kind,
        "issued_before": None if rule is None else rule.issued_before,
        "staleness": round(staleness, 3),
    }
    if as_json:
        output.record(content)
    else:
        output.line(output.logfmt(**content))


def _claims_from_input() -> Mapping[str, object]:
    if sys.stdin.isatty():
        say("paste the claims or the token, then press Enter and Ctrl-D")
    text = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    if len(text) > _MAX_INPUT_BYTES:
        fail(f"standard input is longer than {_MAX_INPUT_BYTES} bytes. Give it the claims of one token, or the token.")
    try:
        claims, was_token = claims_from(text)
    except InvalidClaims as error:
        fail(f"standard input: {error}. Give it the claims of one token as a JSON object, or the token.")
    if was_token:
        say("the token was decoded, not verified: it may be forged")
    return claims


def claims_from(text: bytes) -> tuple[Mapping[str, object], bool]:
    """Parse claims, or decode a token without verifying it; the ``kid`` of its header becomes one of the claims.

    Returns:
        The claims, and whether they were those of a token.

    Raises:
        InvalidClaims: it is neither. The message contains nothing of it.
    """
    text = text.strip()
    if text.startswith(b"{"):
        return _object(text, "the claims"), False
    segments = (text[7:].lstrip() if text[:7].lower() == b"bearer " else text).split(b".")
    if len(segments) == 5:
        raise InvalidClaims("claims", "are encrypted in a token of five parts")
    if len(segments) != 3:
        raise InvalidClaims("claims", "are neither a JSON object nor in a token of three parts")
    header = _object(_decoded(segments[0]), "header")
    payload = _object(_decoded(segments[1]), "payload")
    if "kid" in header:
        payload["kid"] = header["kid"]
    return payload, True


def claim_names_from(text: str) -> ClaimNames:
    """Parse the names of claims, as ``role=claim`` separated by commas; ``client`` may be there more than once.

    Raises:
        InvalidOption: it is something else.
    """
    from jwt_events.events import ClaimNames

    roles = {field.name for field in fields(ClaimNames)}
    given: dict[str, list[str]] = {}
    for part in filter(None, text.split(",")):
        role, is_there, claim = part.partition("=")
        if not is_there or role.strip() not in roles:
            raise InvalidOption(
                "claim_names", f"must be ROLE=CLAIM,… where a role is one of {', '.join(sorted(roles))}"
            )
        given.setdefault(role.strip(), []).append(claim.strip())
    if any(len(names) > 1 for role, names in given.items() if role != "client"):
        raise InvalidOption("claim_names", "names a claim for the same role twice, which only client may have")
    named: dict[str, Any] = {role: tuple(names) if role == "client" else names[0] for role, names in given.items()}
    return ClaimNames(**named)


def _decoded(segment: bytes) -> bytes:
    try:
        return base64.b64decode(segment + b"=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidClaims("claims", "are in a token that is not base64url") from None


def _object(text: bytes, name: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidClaims(name, "is not a JSON object")
    return content
