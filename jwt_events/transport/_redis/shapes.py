"""The shape of the reply to each command. Pure.

A server replies to a command in one shape only, or with an error. What has another shape is the reply to another
command, or comes from something else than a Redis server; so it must not become an empty read, a receipt or a count.
`check_shape` is applied to every reply for which no other parser is named. It returns the reply as it came, so that
callers can unpack it without looking again; only the text of INFO is made valid UTF-8, as a path in it need not be.

Source: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

from jwt_events.transport._redis.protocol import Argument, Command, ErrorReply

Shape: TypeAlias = Callable[[Any, Command], Any]
"""Checks the reply to a command. Any exception that it raises means that the reply cannot be that of the command."""

_MAX_PART: Final = 2**64 - 1

_is_position: Final = re.compile(rb"[0-9]{1,20}+-[0-9]{1,20}").fullmatch
# Without the longest numbers, which are looked at one by one: most replies have many positions, and none of those.
_are_positions: Final = re.compile(rb"(?:[0-9]{1,19}+-[0-9]{1,19}+ )++").fullmatch


def check_shape(reply: Any, command: Command) -> Any:
    """Return a reply that has the shape of its command's replies; a command without a row may have any.

    Raises:
        Exception: of any kind, if it has not.
    """
    return SHAPES.get(command[0], _any)(reply, command)


def position(reply: Any) -> str:
    """Parse a position in a stream."""
    if not _is_position(reply) or (len(reply) > 21 and max(_parts(reply)) > _MAX_PART):
        raise ValueError
    text: str = reply.decode()
    return text


def number(reply: Any) -> int:
    """Parse a count, such as of entries or of receivers."""
    if type(reply) is not int or reply < 0:
        raise TypeError
    return reply


def array(reply: Any) -> list[Any]:
    """Parse an array."""
    if type(reply) is not list:
        raise TypeError
    return reply


def _require(fits: object) -> None:
    if not fits:
        raise ValueError


def _parts(reply: bytes) -> list[int]:
    return [int(part) for part in reply.split(b"-")]


def _positions(replies: Sequence[Any]) -> None:
    """Check many positions at once, which costs a third of looking at each."""
    if replies and not _are_positions(b" ".join(replies) + b" "):
        for reply in replies:
            position(reply)


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
        _require(len(plain) == len(entries) or may_be_removed)
    _positions(plain)
    return entries


def _check_entry(entry: Any, *, may_be_removed: bool) -> Any:
    """Return the position of an entry."""
    name, fields = array(entry)
    if fields is not None or not may_be_removed:
        _require(not len(array(fields)) % 2 and all(type(part) is bytes for part in fields))
    return name


def _any(reply: Any, command: Command) -> Any:
    if type(reply) is ErrorReply:
        raise reply
    return reply


def _exactly(text: bytes) -> Shape:
    def check(reply: Any, command: Command) -> Any:
        _require(reply == text)
        return reply

    return check


def _or_nil(shape: Shape) -> Shape:
    return lambda reply, command: None if reply is None else shape(reply, command)


def _text(reply: Any, command: Command) -> Any:
    _require(type(reply) is bytes)
    return reply


def _count(reply: Any, command: Command) -> Any:
    return number(reply)


def _xadd(reply: Any, command: Command) -> Any:
    position(reply)
    return reply


def _score(reply: Any, command: Command) -> Any:
    float(reply)
    _bytes(reply)
    return reply


def _zadd(reply: Any, command: Command) -> Any:
    return _score(reply, command) if "INCR" in command else number(reply)  # the new score, or a count


def _time(reply: Any, command: Command) -> Any:
    _require(len(array(reply)) == 2 and all(part.isdigit() for part in reply))
    return reply


def _info(reply: Any, command: Command) -> bytes:
    """Check lines of ``name:value`` below headings."""
    text: str = reply.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line]
    _require(all(":" in line or line.startswith("#") for line in lines))
    if command[1:] == ("replication",):
        _require(any(line.startswith("role:") for line in lines))
    return text.encode()


def _cluster_info(reply: Any, command: Command) -> bytes:
    _require(b"cluster_state:" in reply)
    return _info(reply, command)


def _cluster_nodes(reply: Any, command: Command) -> Any:
    """Check lines, of which one is about the node itself."""
    _require(type(reply) is bytes and b"myself" in reply)
    return reply


def _hello(reply: Any, command: Command) -> Any:
    """Check names and values: a map, which is an array before RESP3."""
    fields = reply if type(reply) is dict else dict(zip(array(reply)[::2], reply[1::2], strict=True))
    _require(fields and all(type(name) is bytes for name in fields))
    _bytes(fields.get(b"role", b""))
    return reply


def _role(reply: Any, command: Command) -> Any:
    _require(array(reply)[0] in (b"master", b"slave", b"sentinel"))
    return reply


def _flat_map(reply: Any, **kinds: Callable[[Any], object]) -> None:
    """Check names and values in turn, of which those that are named must be there and of their kind."""
    fields = dict(zip(array(reply)[::2], reply[1::2], strict=True))
    _require(all(type(name) is bytes for name in fields))
    for name, check in kinds.items():
        check(fields[name.replace("_", "-").encode()])


def _optional(reply: Any, *names: str) -> None:
    """Check fields that older servers do not have, and that are nil where a server does not know the number."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    for name in names:
        if (value := fields.get(name.encode())) is not None:
            number(value)


def _bytes(value: Any) -> None:
    _require(type(value) is bytes)


def _entry_or_nil(value: Any) -> None:
    if value is not None:
        _entries([value])


def _named_texts(reply: Any, command: Command) -> Any:
    _flat_map(reply)
    _require(all(type(part) is bytes for part in reply))
    return reply


def _xinfo_stream(reply: Any, command: Command) -> Any:
    _flat_map(reply, length=number, first_entry=_entry_or_nil, last_generated_id=position)
    _optional(reply, "entries-added")
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    _require((fields[b"length"] == 0) == (fields[b"first-entry"] is None))
    return reply


def _xinfo_groups(reply: Any, command: Command) -> Any:
    for row in array(reply):
        _flat_map(row, name=_bytes, pending=number, last_delivered_id=position)
        _optional(row, "entries-read", "lag")
    return reply


def _xinfo_consumers(reply: Any, command: Command) -> Any:
    for row in array(reply):
        _flat_map(row, name=_bytes, pending=number, idle=number)
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
    _require(key == _encoded(command[-2]) and len(_entries(entries)) > 0)
    if type(after := command[-1]) is str and "-" in after:
        _require(_parts(after.encode()) < _parts(entries[0][0]) <= _parts(entries[-1][0]))
    return reply


def _xclaim(reply: Any, command: Command) -> Any:
    if command[-1] == "JUSTID":
        _positions(array(reply))
    else:
        _entries(reply, may_be_removed=True)
    return reply


def _xautoclaim(reply: Any, command: Command) -> Any:
    cursor, entries, *removed = array(reply)
    position(cursor)
    _entries(entries, may_be_removed=True)
    if removed:  # since Redis 7
        (positions,) = removed
        _positions(array(positions))
    return reply


def _xpending(reply: Any, command: Command) -> Any:
    if len(command) == 3:
        count, first, last, consumers = array(reply)
        if number(count):
            _positions([first, last])
            array(consumers)
        return reply
    rows = array(reply)
    for row in rows:
        name, consumer, idle, deliveries = array(row)
        position(name)
        _bytes(consumer)
        number(idle)
        number(deliveries)
    return rows


def _exec(reply: Any, command: Command) -> Any:
    """Check the replies to the commands of a transaction; nil if a watched key was changed."""
    return None if reply is None else array(reply)


def _zrange(reply: Any, command: Command) -> Any:
    _require(all(type(part) is bytes for part in array(reply)))
    return reply


def _zscan(reply: Any, command: Command) -> Any:
    """Check a cursor, then members and scores in turn."""
    cursor, members = array(reply)
    _require(cursor.isdigit() and not len(array(members)) % 2)
    _require(set(map(type, members)) <= {bytes})
    return reply


def _encoded(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def _by_subcommand(**shapes: Shape) -> Shape:
    """Return the shape of the replies to a command that has subcommands."""

    def check(reply: Any, command: Command) -> Any:
        return shapes.get(str(command[1]).lower(), _any)(reply, command)

    return check


_ok: Final = _exactly(b"OK")
_queued: Final = _exactly(b"QUEUED")

_NAMED: Final[Mapping[str, Shape]] = {
    "ACL": _by_subcommand(whoami=_text, dryrun=_text),
    "CLUSTER": _by_subcommand(info=_cluster_info, nodes=_cluster_nodes),
    "CONFIG": _by_subcommand(get=_named_texts, set=_ok),
    "DEL": _count,
    "EVAL": _any,
    "EXEC": _exec,
    "EXISTS": _count,
    "EXPIRE": _count,
    "GET": _or_nil(_text),
    "HELLO": _hello,
    "HDEL": _count,
    "HGETALL": _named_texts,
    "HSET": _count,
    "INFO": _info,
    "MULTI": _ok,
    "MEMORY": _by_subcommand(usage=_or_nil(_count)),
    "PEXPIRE": _count,
    "PING": _exactly(b"PONG"),
    "PUBLISH": _count,
    "SPUBLISH": _count,
    "SSUBSCRIBE": _any,  # arrives among the pushed messages
    "ROLE": _role,
    "SET": _or_nil(_ok),
    "SUBSCRIBE": _any,  # arrives among the pushed messages
    "TIME": _time,
    "UNLINK": _count,
    "WAIT": _count,
    "WATCH": _ok,
    "XACK": _count,
    "XADD": _xadd,
    "XAUTOCLAIM": _xautoclaim,
    "XCLAIM": _xclaim,
    "XDEL": _count,
    "XGROUP": _by_subcommand(create=_ok, setid=_ok, delconsumer=_count, destroy=_count),
    "XINFO": _by_subcommand(stream=_xinfo_stream, groups=_xinfo_groups, consumers=_xinfo_consumers),
    "XLEN": _count,
    "XPENDING": _xpending,
    "XRANGE": _xrange,
    "XREAD": _read,
    "XREADGROUP": _read,
    "XREVRANGE": _xrange,
    "XTRIM": _count,
    "ZADD": _zadd,
    "ZSCORE": _or_nil(_score),
    "ZCARD": _count,
    "ZCOUNT": _count,
    "ZRANGE": _zrange,
    "ZREMRANGEBYSCORE": _count,
    "ZSCAN": _zscan,
    # Inside a transaction commands are written in lower case: each is replied to before it is carried out.
    "xtrim": _queued,
    "zadd": _queued,
    "zrem": _queued,
    "zremrangebyscore": _queued,
}

SHAPES: Final[Mapping[Argument, Shape]] = dict(
    chain.from_iterable(((name, shape), (name.encode(), shape)) for name, shape in _NAMED.items())
)
"""The shape of the replies to each command that this library sends."""
