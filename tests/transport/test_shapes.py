"""The shape of each command's reply: what fits is returned as it came, and all else is refused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import jwt_events
from jwt_events.transport._redis.channels import PLAIN, SHARDED
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.parsers import number, position
from jwt_events.transport._redis.protocol import ErrorReply, PushedMessage
from jwt_events.transport._redis.shapes import SHAPES, check_shape
from tests.support.raw import call

ENTRY = [b"5-1", [b"event", b"x"]]
WIDE = [b"5-2", [b"event", b"x", b"more", b"y"]]
INFO = [b"length", 1, b"last-generated-id", b"5-1", b"entries-added", 7, b"first-entry", ENTRY, b"new-field", [1]]
EMPTY = [b"length", 0, b"last-generated-id", b"0-0", b"first-entry", None]
GROUP = [b"name", b"g", b"pending", 1, b"last-delivered-id", b"5-1", b"entries-read", None, b"lag", 3]
CONSUMER = [b"name", b"\xff", b"pending", 1, b"idle", 10]

READ: Command = ("XREAD", "COUNT", 10, "STREAMS", "k", "5-0")
SHARE: Command = ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "k", ">")

FITTING: list[tuple[Command, Any]] = [
    (READ, None),
    (READ, [[b"k", [ENTRY]]]),
    (READ, [[b"k", [ENTRY, WIDE]]]),
    (("XREAD", "STREAMS", "k", "$"), [[b"k", [ENTRY]]]),
    (SHARE, None),
    (SHARE, [[b"k", [WIDE]]]),
    (("XADD", "k", "*", "event", b"x"), b"18446744073709551615-18446744073709551615"),
    ((b"XADD", b"k", b"*", b"event", b"x"), b"0-1"),
    (("XINFO", "STREAM", "k"), INFO),
    (("XINFO", "STREAM", "k"), EMPTY),
    (("XINFO", "GROUPS", "k"), []),
    (("XINFO", "GROUPS", "k"), [GROUP]),
    (("XINFO", "CONSUMERS", "k", "g"), [CONSUMER]),
    (("XRANGE", "k", "-", "+"), []),
    (("XRANGE", "k", "-", "+"), [ENTRY, WIDE]),
    (("XAUTOCLAIM", "k", "g", "c", 0, "0-0"), [b"0-0", []]),
    (("XAUTOCLAIM", "k", "g", "c", 0, "0-0"), [b"6-0", [ENTRY, None, [b"5-9", None]], [b"5-8"]]),
    (("XCLAIM", "k", "g", "c", 0, "5-1"), [ENTRY, None]),
    (("XCLAIM", "k", "g", "c", 0, "5-1", "JUSTID"), [b"5-1"]),
    (("XPENDING", "k", "g"), [0, None, None, None]),
    (("XPENDING", "k", "g"), [2, b"5-1", b"5-2", [[b"c", b"2"]]]),
    (("XPENDING", "k", "g", "-", "+", 9, "c"), [[b"5-1", b"c", 10, 1]]),
    (("XGROUP", "CREATE", "k", "g", "0-0"), b"OK"),
    (("XGROUP", "DELCONSUMER", "k", "g", "c"), 0),
    (("CONFIG", "GET", "save"), [b"save", b""]),
    (("CLUSTER", "INFO"), b"cluster_state:ok\r\n"),
    (("CLUSTER", "NODES"), b"id 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-16383\n"),
    (("CONFIG", "SET", "save", ""), b"OK"),
    (("TIME",), [b"1700000000", b"123456"]),
    (("INFO", "server"), b"# Server\r\nrun_id:a:b\r\n\r\n"),
    (("INFO", "replication"), b"# Replication\r\nrole:master\r\n"),
    (("HELLO",), [b"server", b"redis", b"role", b"master", b"modules", []]),
    (("HELLO", 3), {b"server": b"redis", b"role": b"master", b"modules": []}),
    (("ZADD", "k", "GT", 5, "m"), 1),
    (("ZADD", "k", "INCR", 0, "m"), b"86400000"),
    (("ZRANGE", "k", "-inf", "-inf", "BYSCORE"), [b"\0head"]),
    (("ZREMRANGEBYSCORE", "k", 0, 1), 2),
    (("ZSCAN", "k", "0", "COUNT", 9), [b"0", [b"m", b"1700000000", b"n", b"inf"]]),
    (("ZSCAN", "k", "0", "COUNT", 9), [b"17", []]),
    (("WATCH", "k"), b"OK"),
    (("MULTI",), b"OK"),
    (("zadd", "k", "GT", 5, "m"), b"QUEUED"),
    (("xtrim", "k", "MINID", "5-1"), b"QUEUED"),
    (("zremrangebyscore", "k", 0, 1), b"QUEUED"),
    (("EXEC",), [1, b"x", ErrorReply("WRONGTYPE")]),
    (("EXEC",), None),
    (("ROLE",), [b"master", 0, []]),
    (("SET", "k", "v", "NX"), b"OK"),
    (("SET", "k", "v", "NX"), None),
    (("GET", "k"), b"\xff"),
    (("GET", "k"), None),
    (("HGETALL", "k"), []),
    (("HGETALL", "k"), [b"a", b"\xff"]),
    (("HSET", "k", "a", b"x"), 0),
    (("HDEL", "k", "a"), 0),
    (("MEMORY", "USAGE", "k"), 300),
    (("MEMORY", "USAGE", "k"), None),
    (("ZSCORE", "k", "m"), b"5"),
    (("ZSCORE", "k", "m"), None),
    (("PING",), b"PONG"),
    (("CLUSTER", "SLOTS"), [[0, 16383, [b"127.0.0.1", 7000, b"id", []], [None, 7001]]]),
    (("CLUSTER", "SLOTS"), []),
    (("CLUSTER", "INFO"), b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"),
    (("PUBLISH", "k", b"x"), 0),
    (("ACL", "WHOAMI"), b"\xff"),
    (("EVAL", "return 1", 0), 1),
    (("SOMETHING", "NEW"), {"any": "thing"}),
]

# What any command may be answered by something that is no Redis server, or after replies were mixed up.
STRANGE = [0, -1, True, False, 0.0, b"", b"QUEUED", b"OK", b"\xff", [], [[]], [None], [b"k", 0], {}, {b"a": b"b"}]

UNFIT: list[tuple[Command, Any]] = [
    (READ, [[b"other", [ENTRY]]]),
    (READ, [[b"k", []]]),
    (READ, [[b"k", None]]),
    (READ, [[b"k", [ENTRY]], [b"k", [ENTRY]]]),
    (READ, [[b"k", [[b"5-0", [b"event", b"x"]]]]]),  # not after the position that was asked for
    (READ, [[b"k", [[b"5-2", [b"event", b"x"]], ENTRY]]]),
    (READ, [[b"k", [[b"5-1", None]]]]),
    (READ, [[b"k", [[b"5-1", [b"event"]]]]]),
    (READ, [[b"k", [[b"5-1", [b"event", 1]]]]]),
    (READ, [[b"k", [[b"5-1", b"ab"]]]]),
    (READ, [[b"k", [[b"5-1", {b"event": b"x", b"more": b"y"}]]]]),
    (READ, [[b"k", [[b"5-1", [b"event", b"x"], b"more"]]]]),
    (READ, [[b"k", [[5, [b"event", b"x"]]]]]),
    (READ, [[b"k", [[b"5", [b"event", b"x"]]]]]),
    (READ, [[b"k", [[b"5-1 6-1", [b"event", b"x"]]]]]),
    (READ, [[b"k", [ENTRY, None]]]),
    (READ, [[b"k", [ENTRY, [b"99999999999999999999-1", [b"event", b"x"]]]]]),
    *[(("XADD", "k", "*", "event", b"x"), reply) for reply in (b"5", b"-5", b"5-", b"5-1\n", b" 5-1", None)],
    (("XADD", "k", "*", "event", b"x"), b"18446744073709551616-0"),
    *[(("XINFO", "STREAM", "k"), INFO[:at] + INFO[at + 1 :]) for at in range(len(INFO))],
    (("XINFO", "STREAM", "k"), [b"length", 1, *EMPTY[2:]]),
    (("XINFO", "STREAM", "k"), [b"length", 0, *INFO[2:]]),
    (("XINFO", "STREAM", "k"), [b"length", True, *INFO[2:]]),
    (("XINFO", "GROUPS", "k"), [GROUP[2:]]),
    (("XINFO", "GROUPS", "k"), [[*GROUP[:-1], b"3"]]),
    (("XINFO", "CONSUMERS", "k", "g"), [CONSUMER[:-2]]),
    (("XAUTOCLAIM", "k", "g", "c", 0, "0-0"), [b"0-0"]),
    (("XAUTOCLAIM", "k", "g", "c", 0, "0-0"), [b"0-0", [], [], []]),
    (("XAUTOCLAIM", "k", "g", "c", 0, "0-0"), [b"0-0", None]),
    (("XCLAIM", "k", "g", "c", 0, "5-1", "JUSTID"), [ENTRY]),
    (("XPENDING", "k", "g"), [2, None, None, None]),
    (("XPENDING", "k", "g", "-", "+", 9, "c"), [[b"5-1", b"c", 10]]),
    (("CONFIG", "GET", "save"), [b"save"]),
    (("TIME",), [b"1700000000", b"-1"]),
    (("TIME",), [1700000000, 1]),
    (("INFO", "replication"), b"# Replication\r\n"),
    (("INFO", "replication"), b"\r\n"),
    (("HELLO",), [b"role"]),
    (("HELLO",), [b"role", 1]),
    (("HELLO", 3), {b"role": None}),
    (("HELLO", 3), {b"role": b"master", 1: b"x"}),
    (("HGETALL", "k"), [b"a"]),
    (("HGETALL", "k"), [b"a", 1]),
    (("HSET", "k", "a", b"x"), b"OK"),
    (("MEMORY", "USAGE", "k"), b"300"),
    (("ZSCORE", "k", "m"), 5),
    (("ZADD", "k", "GT", 5, "m"), b"1"),
    (("ZADD", "k", "INCR", 0, "m"), None),
    (("ZRANGE", "k", "-inf", "-inf", "BYSCORE"), [b"m", 1]),
    (("ZSCAN", "k", "0"), [b"0", [b"m"]]),
    (("ZSCAN", "k", "0"), [b"0", [b"m", 1]]),
    (("ZSCAN", "k", "0"), [b"-1", []]),
    (("xtrim", "k", "MINID", "5-1"), 1),
    (("CLUSTER", "SLOTS"), [[0, 16383]]),
    (("CLUSTER", "SLOTS"), [[5, 4, [b"127.0.0.1", 7000]]]),
    (("CLUSTER", "SLOTS"), [[0, 16383, [b"127.0.0.1", b"7000"]]]),
    (("CLUSTER", "NODES"), 1),
]

_MAY_BE_NONE = {"XCLAIM", "XPENDING", "XINFO", "XGROUP", "ZRANGE", "ZREMRANGEBYSCORE", "MEMORY"}


@pytest.mark.parametrize(("command", "reply"), FITTING)
def test_what_fits(command: Command, reply: Any) -> None:
    """A reply of the right shape is returned as it came."""
    assert check_shape(reply, command) == reply


@pytest.mark.parametrize(("command", "reply"), UNFIT)
def test_what_does_not_fit(command: Command, reply: Any) -> None:
    """A reply of another shape is refused."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - of any kind
        check_shape(reply, command)


@pytest.mark.parametrize("command", {command[:2]: command for command, _ in FITTING[:-2]}.values())
@pytest.mark.parametrize("reply", [*STRANGE, ErrorReply("ERR")])
def test_what_is_strange(command: Command, reply: Any) -> None:
    """Each command refuses what cannot be a reply to it, unless another of its replies is just that."""
    if any(type(reply) is type(fits) and reply == fits for other, fits in FITTING if other[:2] == command[:2]):
        return
    if command[0] in {"GET", "ACL"} and isinstance(reply, bytes):
        return
    if command[0] == "HELLO" and reply in ([b"k", 0], {b"a": b"b"}):  # any map: there are servers that tell no role
        return
    if (command[:2] == ("INFO", "server") and reply == b"") or (command[0] == "CONFIG" and reply == []):
        return
    if reply in ([], 0) and type(reply) is not bool and command[0] in _MAY_BE_NONE:
        return
    if command[0] == "EXEC" and type(reply) is list:  # its caller knows what the transaction holds
        return
    with pytest.raises(Exception):  # noqa: B017, PT011 - of any kind
        check_shape(reply, command)


@pytest.mark.parametrize("command", [command for command, _ in FITTING[-2:]])
def test_an_error_reply(command: Command) -> None:
    """An error reply is raised, also where any shape fits."""
    with pytest.raises(ErrorReply):
        check_shape(ErrorReply("ERR"), command)


def test_a_path_that_is_not_utf_8() -> None:
    """The text of INFO is valid UTF-8 whatever the path of the server's program is, and loses nothing else."""
    reply = b"executable:/opt/r\xe9dis\r\nconfig_file:\xff\r\nrun_id:abc\r\n"
    text: bytes = check_shape(reply, ("INFO", "server"))
    assert text.decode() == "executable:/opt/r\ufffddis\r\nconfig_file:\ufffd\r\nrun_id:abc\r\n"


def test_parsers() -> None:
    """A position becomes text, and a count a number."""
    assert position(b"5-1") == "5-1"
    assert number(3) == 3
    for wrong in (True, -1, b"1", None, 1.0):
        with pytest.raises(TypeError):
            number(wrong)


class TestPushed:
    """Messages to a subscriber."""

    @pytest.mark.parametrize(
        "message",
        [
            [b"message", b"k", b""],
            [b"subscribe", b"k", 1],
            [b"unsubscribe", b"k", 0],
            [b"unsubscribe", None, 0],
        ],
    )
    @pytest.mark.parametrize("prefix", [b"", b"s"])
    def test_what_fits(self, message: Any, prefix: bytes) -> None:
        """A message of the right shape is returned as it came, if it belongs to the kind of channels."""
        own, other = (SHARDED, PLAIN) if prefix else (PLAIN, SHARDED)
        message = [prefix + message[0], *message[1:]]
        assert own.parse(PushedMessage(message), b"k") == message
        with pytest.raises(ValueError):  # noqa: PT011 - it has no message
            other.parse(PushedMessage(message), b"k")
        with pytest.raises(TypeError):  # a reply, as it is not marked as pushed
            own.parse(message, b"k")

    @pytest.mark.parametrize(
        "message",
        [
            *[strange for strange in STRANGE if type(strange) is list],
            [b"message", b"k"],
            [b"message", b"k", 5],
            [b"message", b"other", b"x"],
            [b"message", b"k", [b"x"]],
            [b"message", b"k", b"x", b"y"],
            [b"pmessage", b"k", b"k", b"x"],
            [b"subscribe", b"k", b"1"],
            [b"pong", b""],
        ],
    )
    def test_what_does_not_fit(self, message: Any) -> None:
        """All else is refused."""
        with pytest.raises(Exception):  # noqa: B017, PT011 - of any kind
            PLAIN.parse(PushedMessage(message), b"k")


async def test_every_command_has_a_row(client: Redis) -> None:
    """Whatever this library sends has its row, as a reply without a row may have any shape."""
    known = {name.upper() for name in await call(client, "COMMAND")}
    known -= {"DEBUG", "READONLY", "POST"}  # a level of the log, the code of an error, and how Redis 6.2 refuses HTTP
    sent = {word for path in Path(jwt_events.__file__).parent.rglob("*.py") for word in _first_words(path)}
    missing = (sent & known) - SHAPES.keys()
    assert not missing, f"give these a row in jwt_events/transport/_redis/shapes: {sorted(missing)}"
    assert {"XADD", "XREAD", "TIME"} <= sent & known


def _first_words(path: Path) -> Iterator[str]:
    """Return the words with which a tuple, or the arguments of a call, begin: among them all commands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Tuple, ast.Call)):
            first = (node.elts if isinstance(node, ast.Tuple) else node.args)[:1]
            if first and isinstance(first[0], ast.Constant) and isinstance(first[0].value, (str, bytes)):
                word = first[0].value
                yield word if isinstance(word, str) else word.decode("ascii", "replace")
