"""What publishers and subscribers must be allowed to do, and how to find out without doing any harm.

Every command below is answered with an error, or with nothing, if it is allowed: an entry at 0-0 cannot be added, there
is nothing to trim below 0-0, and nobody has a group of that name. The server looks at the rights first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport.connection import Command, Connection

_WITHIN = 5.0
_NOBODY = "jwt-events:doctor"


def needed_for_stream(key: str, dead_letter: str) -> Mapping[str, Sequence[Command]]:
    """Return the commands that each role needs on a stream."""
    read: list[Command] = [
        ("XREAD", "COUNT", 1, "STREAMS", key, "$"),
        ("XRANGE", key, "0-0", "0-0"),
        ("XINFO", "STREAM", key),
        ("INFO", "server"),
    ]
    mark = f"{dead_letter}:{_NOBODY}"
    bury: Command = ("XADD", dead_letter, "0-0", "event", "")
    return {
        "publisher": [("XADD", key, "0-0", "event", ""), ("XTRIM", key, "MINID", "0-0"), ("TIME",)],
        "revocation list": read,
        "subscriber": [*read, bury, ("SET", mark, "", "XX"), ("GET", mark)],
        "subscriber in a group": [
            ("XREADGROUP", "GROUP", _NOBODY, _NOBODY, "COUNT", 1, "STREAMS", key, ">"),
            ("XRANGE", key, "0-0", "0-0"),
            ("XACK", key, _NOBODY, "0-0"),
            ("XCLAIM", key, _NOBODY, _NOBODY, 0, "0-0"),
            ("XAUTOCLAIM", key, _NOBODY, _NOBODY, 0, "0-0", "COUNT", 1),
            ("XPENDING", key, _NOBODY),
            ("XGROUP", "CREATE", key, _NOBODY, "no position"),
            ("XINFO", "STREAM", key),
            ("XINFO", "GROUPS", key),
            ("XINFO", "CONSUMERS", key, _NOBODY),
            ("INFO", "server"),
            bury,
        ],
    }


def needed_for_pubsub(channel: str) -> Mapping[str, Sequence[Command]]:
    """Return the commands that each role needs on a channel."""
    return {"publisher": [("PUBLISH", channel, "")], "subscriber": [("SUBSCRIBE", channel), ("PING",)]}


async def lacking(connection: Connection, commands: Sequence[Command]) -> list[str] | None:
    """Return those of the commands that this user may not use; ``None`` if that cannot be found out without harm.

    Raises:
        TransportError: no answer.
    """
    if (user := await _user(connection)) is not None:
        answers = await connection.execute_many(
            [("ACL", "DRYRUN", user, *command) for command in commands], within=_WITHIN
        )
        if not any(isinstance(answer, TransportError) for answer in answers):
            return _names([command for command, answer in zip(commands, answers, strict=True) if answer != b"OK"])
    if any(command[0] in {"PUBLISH", "SUBSCRIBE"} for command in commands):
        return None  # somebody would hear it, and a connection that listens can ask nothing else
    answers = await connection.execute_many(commands, within=_WITHIN)
    for answer in answers:
        if isinstance(answer, TransportError) and not isinstance(answer, ServerRefused):
            raise answer
    refused = [isinstance(answer, ServerRefused) and answer.code == "NOPERM" for answer in answers]
    return _names([command for command, no in zip(commands, refused, strict=True) if no])


async def _user(connection: Connection) -> bytes | None:
    try:
        name: bytes = await connection.call("ACL", "WHOAMI", within=_WITHIN)
    except ServerRefused:
        return None
    return name


def _names(commands: Sequence[Command]) -> list[str]:
    two = {"XINFO", "XGROUP"}
    return [" ".join(map(str, command[: 2 if command[0] in two else 1])) for command in commands]
