"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from jwt_events.errors import InvalidOption

if TYPE_CHECKING:
    from jwt_events.fleet import Fleet, Lease
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

DEFAULT_URL = "redis://localhost:6379"
DEFAULT_NAME = "jwt:events"
NOT_GIVEN = "\0"
"""The value of an option that was not given: a command line cannot contain it."""

FROM_OPTION = "--url"
FROM_ENVIRONMENT = "JWT_EVENTS_URL"

url_source: ContextVar[str] = ContextVar("url_source", default=FROM_OPTION)
"""What the URL in use was taken from, so that errors name that."""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# A smaller number is a year, or seconds from now. As seconds since 1970, this is in 1973.
_MIN_NUMERIC_DATE = 1e8
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)


class TransportName(StrEnum):
    """The transports that the command line offers."""

    STREAM = "stream"
    PUBSUB = "pubsub"


def url_before_command(context: typer.Context) -> str | None:
    """Return the URL that was given before the name of the command; ``None`` if there was none."""
    url: str | None = context.find_root().params.get("url")
    return url


def _url(context: typer.Context, value: str) -> str:
    """Return the URL to use. A given one takes precedence even if it is empty."""
    url_source.set(FROM_OPTION)
    if value != NOT_GIVEN:
        return value
    if (before := url_before_command(context)) is not None:
        return before
    if not (url := os.environ.get(FROM_ENVIRONMENT)):
        return DEFAULT_URL
    url_source.set(FROM_ENVIRONMENT)
    return url


Url = Annotated[
    str,
    typer.Option(
        "--url",
        callback=_url,
        show_default=False,
        metavar="URL",
        help=f"The server: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."
        " Else JWT_EVENTS_URL, else"
        f" {DEFAULT_URL}. Every user of this"
        " machine can read a command line: a password belongs into JWT_EVENTS_URL.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object on each line.")]
Transport = Annotated[TransportName, typer.Option("--transport", help="What carries the events.")]
Key = Annotated[
    str | None,
    typer.Option("--key", show_default=False, metavar="NAME", help=f"The stream; {DEFAULT_NAME} if not given."),
]
Channel = Annotated[
    str | None,
    typer.Option(
        "--channel", show_default=False, metavar="NAME", help=f"The channel of pubsub; {DEFAULT_NAME} if not given."
    ),
]
Retention = Annotated[
    str,
    typer.Option(
        "--retention",
        metavar="TIME",
        help="How long the stream remembers, at least the longest life of a token: 12h, 1d, or seconds. Nothing is"
        " removed by it.",
    ),
]
RetentionWithoutLedger = Annotated[
    str | None,
    typer.Option(
        "--retention",
        show_default=False,
        metavar="TIME",
        help="How long a stream without a ledger remembers: 12h, 1d, or seconds. What expires later is refused.",
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds that publishing may take, tries and pauses included.")
]
InForce = Annotated[
    str | None,
    typer.Option(
        "--in-force",
        show_default=False,
        metavar="WHERE",
        help="Wait until it is in force: in the services of these names, with commas between them; in 'all' that have"
        " announced themselves; or for a lease, such as 5s: the longest max_staleness of all lists.",
    ),
]
DeadLetter = Annotated[
    str | None,
    typer.Option("--dead-letter", show_default=False, metavar="NAME", help="The stream of dead letters; <key>:dead."),
]

Ledger = Annotated[
    str | None, typer.Option("--ledger", show_default=False, metavar="NAME", help="The ledger; <key>:ledger.")
]


def make_transport(
    kind: TransportName,
    url: str,
    *,
    key: str | None,
    channel: str | None,
    retention: str | None = None,
    ledger: str | None = None,
    start: str = "new",
) -> RedisStream | RedisPubSub:
    """Make the transport that the options name; it connects when it is used.

    Raises:
        InvalidOption: the options do not fit together, or one cannot work.
    """
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

    if kind is TransportName.STREAM:
        if channel is not None:
            raise InvalidOption("channel", "is for --transport pubsub; name a stream by --key")
        begin, name = parse_start(start), key or DEFAULT_NAME
        if retention is None:
            stream = RedisStream(url, name, start=begin, ledger=ledger)
        else:
            stream = RedisStream(url, name, start=begin, retention=duration("retention", retention), ledger=False)
        stream.trims = False  # the publishers of the services decide how long entries are kept
        return stream
    if ledger is not None:
        raise InvalidOption("ledger", "is for --transport stream: a channel has none")
    if key is not None:
        raise InvalidOption("key", "is for --transport stream; name a channel by --channel")
    if start != "new":
        raise InvalidOption("start", "must be 'new': pubsub remembers nothing; use --transport stream")
    return RedisPubSub(url, channel or DEFAULT_NAME)


def duration(option: str, text: str) -> timedelta:
    """Parse a duration: seconds, or a number with s, m, h or d.

    Raises:
        InvalidOption: it is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidOption(option, "must be a duration such as 90s, 30m, 12h or 1d, or a number of seconds")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise InvalidOption(option, "must be less than a billion days") from None


def parse_in_force(text: str | None) -> Lease | Fleet | None:
    """Parse what to wait for after publishing: a duration, ``all``, or names of services.

    Raises:
        InvalidOption: it is none of these.
    """
    from jwt_events.fleet import Fleet, Lease

    if text is None:
        return None
    if text == "all":
        return Fleet()
    names = text.split(",")
    if "all" in names or any(name.startswith("-") for name in names):
        raise InvalidOption("in_force", "must be names of services, with commas between them; 'all'; or a lease: 5s")
    with named_as(max_staleness="in_force", services="in_force"):
        if _DURATION.fullmatch(text.strip()):
            return Lease(duration("in_force", text).total_seconds())
        return Fleet(*names)


@contextmanager
def named_as(**options: str) -> Iterator[None]:
    """Name in errors the options of the command, given by the names of the parameters that they become.

    Raises:
        InvalidOption: as the block does.
    """
    try:
        yield
    except InvalidOption as error:
        if (option := options.get(error.option)) is None:
            raise
        raise InvalidOption(option, str(error).partition(": ")[2]) from None


def instant(option: str, text: str) -> datetime:
    """Parse an instant: ISO 8601 with an offset from UTC, or a NumericDate.

    Raises:
        InvalidOption: it is not an instant.
    """
    try:
        value = datetime.fromisoformat(text) if re.search(r"[-:]", text) else datetime.fromtimestamp(_number(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidOption(
            option, "must be an instant such as 2026-03-01T12:00:00Z, or a NumericDate (seconds since 1970)"
        ) from None
    if value.tzinfo is None:
        raise InvalidOption(option, "needs an offset from UTC, as in 2026-03-01T12:00:00Z or …+01:00")
    return value


def parse_start(text: str) -> str | datetime:
    """Parse where reading starts: ``new``, ``all``, a position, or an instant.

    Raises:
        InvalidOption: it is none of these.
    """
    from jwt_events._internal.positions import is_position

    return text if text in {"new", "all"} or is_position(text) else instant("start", text)


def _number(text: str) -> float:
    from jwt_events.events import MAX_NUMERIC_DATE

    value = float(text)
    if not _MIN_NUMERIC_DATE <= value < MAX_NUMERIC_DATE:
        raise ValueError
    return value
