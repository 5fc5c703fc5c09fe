"""The shape of the reply to each command. Pure.

A server replies to a command in one shape only, or with an error. What has another shape is the reply to another
command, or comes from something else than a Redis server; so it must not become an empty read, a receipt or a count.
`check_shape` is applied to every reply for which no other parser is named. It returns the reply as it came, so that
callers can unpack it without looking again; only the text of INFO is made valid UTF-8, as a path in it need not be.

Source: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

from jwt_events.transport._redis.commands import Argument, Command
from jwt_events.transport._redis.parsers import (
    Shape,
    any_count,
    any_reply,
    any_text,
    array,
    by_subcommand,
    check_positions,
    encoded,
    exactly,
    number,
    or_nil,
    position,
    require,
    require_text,
    split_position,
)


def check_shape(reply: Any, command: Command) -> Any:
    """Return a reply that has the shape of its command's replies; a command without a row may have any.

    Raises:
        Exception: of any kind, if it has not.
    """
    return SHAPES.get(command[0], any_reply)(reply, command)


def _entries(reply: Any, *, may_be_removed: bool = False) -> list[Any]:
    """Check entries: pairs of a position and, as a flat array, the names and values of fields.

    Args:
        reply: the entries.
        may_be_removed: whether an entry, or its fields, may be nil because it was removed from the stream.
    """
    entries = array(reply)
    # Nearly all entries have one field: this costs a tenth of a microsecond for each, and may cost no more.
    try:
        plain = [
            position
            for position, fields in entries
            if fields.__class__ is list
            for name, value in (fields,)
            if name.__class__ is value.__class__ is bytes
        ]
    except (TypeError, ValueError):  # more fields, or none
        plain = []
    if len(plain) != len(entries):
        plain = [_check_entry(entry, may_be_removed=may_be_removed) for entry in entries if entry is not None]
        require(len(plain) == len(entries) or may_be_removed)
    check_positions(plain)
    return entries


def _check_entry(entry: Any, *, may_be_removed: bool) -> Any:
    """Return the position of an entry."""
    name, fields = array(entry)
    if fields is not None or not may_be_removed:
        require(not len(array(fields)) % 2 and all(type(part) is bytes for part in fields))
    return name


def _xadd(reply: Any, command: Command) -> Any:
    position(reply)
    return reply


def _score(reply: Any, command: Command) -> Any:
    float(reply)
    require_text(reply)
    return reply


def _zadd(reply: Any, command: Command) -> Any:
    return _score(reply, command) if "INCR" in command else number(reply)  # the new score, or a count


def _time(reply: Any, command: Command) -> Any:
    require(len(array(reply)) == 2 and all(part.isdigit() for part in reply))
    return reply


def _info(reply: Any, command: Command) -> bytes:
    """Check lines of ``name:value`` below headings."""
    text: str = reply.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line]
    require(all(":" in line or line.startswith("#") for line in lines))
    if command[1:] == ("replication",):
        require(any(line.startswith("role:") for line in lines))
    return text.encode()


def _cluster_info(reply: Any, command: Command) -> bytes:
    require(b"cluster_state:" in reply)
    return _info(reply, command)


def _cluster_nodes(reply: Any, command: Command) -> Any:
    """Check lines, of which one is about the node itself."""
    require(type(reply) is bytes and b"myself" in reply)
    return reply


def _hello(reply: Any, command: Command) -> Any:
    """Check names and values: a map, which is an array before RESP3."""
    fields = reply if type(reply) is dict else dict(zip(array(reply)[::2], reply[1::2], strict=True))
    require(fields and all(type(name) is bytes for name in fields))
    require_text(fields.get(b"role", b""))
    return reply


def _role(reply: Any, command: Command) -> Any:
    require(array(reply)[0] in (b"master", b"slave", b"sentinel"))
    return reply


def _flat_map(reply: Any, **kinds: Callable[[Any], object]) -> None:
    """Check names and values in turn, of which those that are named must be there and of their kind."""
    fields = dict(zip(array(reply)[::2], reply[1::2], strict=True))
    require(all(type(name) is bytes for name in fields))
    for name, check in kinds.items():
        check(fields[name.replace("_", "-").encode()])


def _optional(reply: Any, *names: str) -> None:
    """Check fields that older servers do not have, and that are nil where a server does not know the number."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    for name in names:
        if (value := fields.get(name.encode())) is not None:
            number(value)


def _entry_or_nil(value: Any) -> None:
    if value is not None:
        _entries([value])


def _named_texts(reply: Any, command: Command) -> Any:
    _flat_map(reply)
    require(all(type(part) is bytes for part in reply))
    return reply


def _xinfo_stream(reply: Any, command: Command) -> Any:
    _flat_map(reply, length=number, first_entry=_entry_or_nil, last_generated_id=position)
    _optional(reply, "entries-added")
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    require((fields[b"length"] == 0) == (fields[b"first-entry"] is None))
    position(fields.get(b"max-deleted-entry-id", b"0-0"))  # since Redis 7
    return reply


def _xinfo_groups(reply: Any, command: Command) -> Any:
    for row in array(reply):
        _flat_map(row, name=require_text, pending=number, last_delivered_id=position)
        _optional(row, "entries-read", "lag")
    return reply


def _xinfo_consumers(reply: Any, command: Command) -> Any:
    for row in array(reply):
        _flat_map(row, name=require_text, pending=number, idle=number)
    return reply


def _xrange(reply: Any, command: Command) -> Any:
    return _entries(reply)


def _read(reply: Any, command: Command) -> Any:
    """Check the entries of the one stream that was asked for: some, or nil.

    An empty array is not nil: no server sends it here, and it would prove that there is nothing to read.
    """
    if reply is None:
        return None
    ((key, entries),) = array(reply)
    require(key == encoded(command[-2]) and len(_entries(entries)) > 0)
    if type(after := command[-1]) is str and "-" in after:
        first = split_position(entries[0][0])
        require(split_position(after.encode()) < first)
        require(len(entries) == 1 or first < split_position(entries[-1][0]))
    return reply


def _read_group(reply: Any, command: Command) -> Any:
    """Check new entries as those of XREAD; of those that a consumer holds already there may be none."""
    if command[-1] == ">":
        return _read(reply, command)
    ((key, entries),) = array(reply)
    require(key == encoded(command[-2]))
    _entries(entries, may_be_removed=True)
    return reply


def _xclaim(reply: Any, command: Command) -> Any:
    if command[-1] == "JUSTID":
        check_positions(array(reply))
    else:
        _entries(reply, may_be_removed=True)
    return reply


def _xautoclaim(reply: Any, command: Command) -> Any:
    cursor, entries, *removed = array(reply)
    position(cursor)
    _entries(entries, may_be_removed=True)
    if removed:  # since Redis 7
        (positions,) = removed
        check_positions(array(positions))
    return reply


def _xpending(reply: Any, command: Command) -> Any:
    if len(command) == 3:
        count, first, last, consumers = array(reply)
        if number(count):
            check_positions([first, last])
            array(consumers)
        return reply
    rows = array(reply)
    for row in rows:
        name, consumer, idle, deliveries = array(row)
        position(name)
        require_text(consumer)
        number(idle)
        number(deliveries)
    return rows


def _exec(reply: Any, command: Command) -> Any:
    """Check the replies to the commands of a transaction; nil if a watched key was changed."""
    return None if reply is None else array(reply)


def _zrange(reply: Any, command: Command) -> Any:
    require(all(type(part) is bytes for part in array(reply)))
    return reply


def _zscan(reply: Any, command: Command) -> Any:
    """Check a cursor, then members and scores in turn."""
    cursor, members = array(reply)
    require(cursor.isdigit() and not len(array(members)) % 2)
    require(set(map(type, members)) <= {bytes})
    return reply


def _cluster_slots(reply: Any, command: Command) -> Any:
    """Check ranges of slots, each with its nodes; of a new cluster there may be none."""
    for first, last, *nodes in array(reply):
        require(0 <= number(first) <= number(last) and nodes)
        for host, port, *_ in nodes:
            require(host is None or type(host) is bytes)
            number(port)
    return reply


_ok: Final = exactly(b"OK")
_queued: Final = exactly(b"QUEUED")

_NAMED: Final[Mapping[str, Shape]] = {
    "ACL": by_subcommand(whoami=any_text, dryrun=any_text),
    "CLUSTER": by_subcommand(slots=_cluster_slots, nodes=_cluster_nodes, info=_cluster_info),
    "CONFIG": by_subcommand(get=_named_texts, set=_ok),
    "DEL": any_count,
    "EVAL": any_reply,
    "EXEC": _exec,
    "EXISTS": any_count,
    "EXPIRE": any_count,
    "GET": or_nil(any_text),
    "HELLO": _hello,
    "HDEL": any_count,
    "HGETALL": _named_texts,
    "HSET": any_count,
    "INFO": _info,
    "MULTI": _ok,
    "MEMORY": by_subcommand(usage=or_nil(any_count)),
    "PEXPIRE": any_count,
    "PING": exactly(b"PONG"),
    "PTTL": any_reply,  # sent by scripts; a user is only asked for its right
    "PUBLISH": any_count,
    "READONLY": _ok,
    "SPUBLISH": any_count,
    "SSUBSCRIBE": any_reply,  # arrives among the pushed messages
    "ROLE": _role,
    "SET": or_nil(_ok),
    "SUBSCRIBE": any_reply,  # arrives among the pushed messages
    "TIME": _time,
    "UNLINK": any_count,
    "WAIT": any_count,
    "WATCH": _ok,
    "XACK": any_count,
    "XADD": _xadd,
    "XAUTOCLAIM": _xautoclaim,
    "XCLAIM": _xclaim,
    "XDEL": any_count,
    "XGROUP": by_subcommand(create=_ok, setid=_ok, delconsumer=any_count, destroy=any_count),
    "XINFO": by_subcommand(stream=_xinfo_stream, groups=_xinfo_groups, consumers=_xinfo_consumers),
    "XLEN": any_count,
    "XPENDING": _xpending,
    "XRANGE": _xrange,
    "XREAD": _read,
    "XREADGROUP": _read_group,
    "XREVRANGE": _xrange,
    "XTRIM": any_count,
    "ZADD": _zadd,
    "ZSCORE": or_nil(_score),
    "ZCOUNT": any_count,
    "ZRANGE": _zrange,
    "ZREMRANGEBYSCORE": any_count,
    "ZSCAN": _zscan,
    # Inside a transaction commands are written in lower case: each is replied to before it is carried out.
    **dict.fromkeys(("unlink", "xtrim", "zadd", "zrem", "zremrangebyscore"), _queued),
}

SHAPES: Final[Mapping[Argument, Shape]] = dict(
    chain.from_iterable(((name, shape), (name.encode(), shape)) for name, shape in _NAMED.items())
)
"""The shape of the replies to each command that this library sends."""
