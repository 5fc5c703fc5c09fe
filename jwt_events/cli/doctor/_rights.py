"""The commands that publishers and subscribers need, and a harmless way to find out which of them a user may not use.

The reply to each command below, if it is allowed, is an error or empty: an entry at 0-0 cannot be added, there is
nothing to trim below 0-0, no rule has an empty name, and no group has that name. The server checks the rights first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport.connection import MEMBERSHIP, Command, Connection, key_of
from jwt_events.transport.stream import StreamKeys

_WITHIN = 5.0
_PROBE = "jwt-events:doctor"


_IN_CLUSTER: Sequence[Command] = (("CLUSTER", "SLOTS"), *MEMBERSHIP)


def needed_for_stream(keys: StreamKeys) -> Mapping[str, Sequence[Command]]:
    """Return the commands that each role needs on a stream; in a cluster, to find the owner, too."""
    needed = _needed_on_one_server(keys)
    return {role: [*commands, *_IN_CLUSTER] for role, commands in needed.items()} if keys.in_cluster else needed


def _needed_on_one_server(keys: StreamKeys) -> Mapping[str, Sequence[Command]]:
    key, dead_letter, marker = keys.stream, keys.dead_letter, keys.dead_letter_marker(_PROBE)
    read: list[Command] = [
        ("XREAD", "COUNT", 1, "STREAMS", key, "$"),
        ("XRANGE", key, "0-0", "0-0"),
        ("XINFO", "STREAM", key),
        ("INFO", "server"),
    ]
    add_dead_letter: Command = ("XADD", dead_letter, "0-0", "event", "")
    publish: list[Command] = [
        ("XADD", key, "0-0", "event", ""),
        *(("XTRIM", key, "MINID", "0-0"), ("TIME",), ("ZADD", keys.retention, "XX", 0, "")),
        *(_needed_to_fold(keys) if keys.has_ledger else []),
    ]
    return {
        "publisher": publish,
        "revocation list": [*read, *_needed_to_read(keys)] if keys.has_ledger else read,
        "subscriber": [*read, add_dead_letter, ("SET", marker, "", "XX"), ("GET", marker)],
        "subscriber in a group": [
            ("XREADGROUP", "GROUP", _PROBE, _PROBE, "COUNT", 1, "STREAMS", key, ">"),
            ("XRANGE", key, "0-0", "0-0"),
            ("XACK", key, _PROBE, "0-0"),
            ("XCLAIM", key, _PROBE, _PROBE, 0, "0-0"),
            ("XAUTOCLAIM", key, _PROBE, _PROBE, 0, "0-0", "COUNT", 1),
            ("XPENDING", key, _PROBE),
            ("XGROUP", "CREATE", key, _PROBE, "no position"),
            ("XGROUP", "DELCONSUMER", key, _PROBE, _PROBE),
            ("EVAL", "return 0", 1, key),
            *(("XINFO", "STREAM", key), ("XINFO", "GROUPS", key), ("XINFO", "CONSUMERS", key, _PROBE)),
            ("INFO", "server"),
            add_dead_letter,
        ],
        "dead letters": _needed_for_dead_letters(key, dead_letter),
        "poller of signals": [*publish, *_needed_to_poll(keys.lease(f"poller:{_PROBE}"))],
    }


def _needed_for_dead_letters(key: str, dead_letter: str) -> Sequence[Command]:
    return (
        ("XLEN", dead_letter),
        ("XRANGE", dead_letter, "0-0", "0-0"),
        ("XADD", key, "0-0", "event", ""),
        ("XDEL", dead_letter, "0-0"),
    )


def _needed_to_poll(lease: str) -> Sequence[Command]:
    return (
        ("EVAL", "return 0", 1, lease),
        ("GET", lease),
        ("SET", lease, "", "XX"),
        ("PTTL", lease),
        ("DEL", lease),
    )


def _needed_to_read(keys: StreamKeys) -> Sequence[Command]:
    ledgers = [keys.ledger, *([] if keys.plain is None else [keys.plain.ledger])]
    return [
        command
        for ledger in ledgers
        for command in (
            ("ZRANGE", ledger, "-inf", "-inf", "BYSCORE"),
            ("ZCOUNT", ledger, "-inf", "-inf"),
            ("ZSCAN", ledger, 0, "COUNT", 1),
        )
    ]


def _needed_to_take_over(plain: StreamKeys) -> Sequence[Command]:
    return (
        ("ZRANGE", plain.retention, 0, -1, "WITHSCORES"),
        ("ZREMRANGEBYSCORE", plain.retention, "(0", "(0"),
        ("ZRANGE", plain.ledger, "-inf", "-inf", "BYSCORE"),
        ("ZSCAN", plain.ledger, 0, "COUNT", 1),
        ("WATCH", plain.ledger),
        ("UNLINK", f"{plain.ledger}:{_PROBE}"),
    )


def _needed_to_fold(keys: StreamKeys) -> Sequence[Command]:
    key, ledger = keys.stream, keys.ledger
    return (
        ("XINFO", "STREAM", key),
        ("XRANGE", key, "0-0", "0-0"),
        ("ZRANGE", ledger, "-inf", "-inf", "BYSCORE"),
        ("ZCOUNT", ledger, "-inf", "-inf"),
        ("ZADD", ledger, "XX", 0, ""),
        ("ZREMRANGEBYSCORE", ledger, "(0", "(0"),
        ("SET", f"{keys.ledger}:{_PROBE}", "", "XX"),
        ("WATCH", ledger),
        ("EXEC",),
        ("MULTI",),
        *(() if keys.plain is None else _needed_to_take_over(keys.plain)),
    )


def needed_for_pubsub(channel: str, *, in_cluster: bool = False) -> Mapping[str, Sequence[Command]]:
    """Return the commands that each role needs on a channel; in a cluster it is sharded, and has an owner."""
    if not in_cluster:
        return {"publisher": [("PUBLISH", channel, "")], "subscriber": [("SUBSCRIBE", channel)]}
    return {
        "publisher": [("SPUBLISH", channel, ""), *_IN_CLUSTER],
        "subscriber": [("SSUBSCRIBE", channel), *_IN_CLUSTER],
    }


async def lacking(connection: Connection, commands: Sequence[Command]) -> list[str] | None:
    """Return the commands that this user may not use; ``None`` if that cannot be found out without harm.

    A command that may be used, but not on the key that it is needed for, comes with the name of that key.

    Raises:
        TransportError: no reply.
    """
    if (user := await _user(connection)) is not None:
        replies = await connection.execute_many(
            [("ACL", "DRYRUN", user, *command) for command in commands], within=_WITHIN
        )
        if not any(isinstance(reply, TransportError) for reply in replies):
            refusals = [(command, reply.decode()) for command, reply in zip(commands, replies, strict=True)]
            return [_named(command, refusal) for command, refusal in refusals if refusal != "OK"]
    if any(command[0] in {"PUBLISH", "SPUBLISH", "SUBSCRIBE", "SSUBSCRIBE"} for command in commands):
        return None  # subscribers would receive it, and a subscribed connection cannot send these commands
    return await _refused(connection, commands)


async def _refused(connection: Connection, commands: Sequence[Command]) -> list[str]:
    """Return the commands that are refused when they are tried, MULTI last: without EXEC it could not be ended."""
    alone = [command for command in commands if command != ("MULTI",)]
    replies = await connection.execute_many(alone, within=_WITHIN)
    may_end = not any(_is_refused(reply) for command, reply in zip(alone, replies, strict=True) if command == ("EXEC",))
    if len(alone) < len(commands) and may_end:
        alone += ("MULTI",), ("EXEC",)
        replies += await connection.execute_many([("MULTI",), ("EXEC",)], within=_WITHIN)
    for reply in replies:
        if isinstance(reply, TransportError) and not isinstance(reply, ServerRefused):
            raise reply
    pairs = zip(alone, replies, strict=True)
    return [_named(command, str(reply)) for command, reply in pairs if _is_refused(reply)]


def _is_refused(reply: object) -> bool:
    """Whether the user lacks the right, or the command has another name on this server."""
    if not isinstance(reply, ServerRefused):
        return False
    if reply.code == "EXECABORT":  # as EXEC is refused, where a transaction has begun or not
        return "permissions" in str(reply)
    return reply.code == "NOPERM" or (reply.code == "ERR" and "unknown command" in str(reply))


async def _user(connection: Connection) -> bytes | None:
    try:
        name: bytes = await connection.call("ACL", "WHOAMI", within=_WITHIN)
    except ServerRefused:
        return None
    return name


def _named(command: Command, refusal: str) -> str:
    with_subcommands = {"CLUSTER", "XINFO", "XGROUP"}
    name = " ".join(map(str, command[: 2 if command[0] in with_subcommands else 1]))
    # Refused are "to run" a command, or "to access" a key or channel, which the server does not always name.
    is_about_key = "permissions to access " in refusal
    return f"{name} on {key_of(command).replace(_PROBE, '*')!r}" if is_about_key else name
