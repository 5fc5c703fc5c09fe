"""How the command line puts things: errors as one line with advice, and nothing that could be a secret. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from jwt_events.errors import (
    ConnectionFailed,
    InvalidEvent,
    InvalidOption,
    OutlivesRetention,
    PublishFailed,
    PublishOutcomeUnknown,
    TransportError,
)

_TOKEN = re.compile(r"eyJ[\w-]*(\.[\w-]*){2,4}", re.ASCII)
_CREDENTIALS = re.compile(r"://[^\s'\"]*@")
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")  # of a field, in what is said about others
_CODE = re.compile(r"refused: ([A-Z]+)\b")

_ADVICE = {
    "LOADING": "The server is still reading its data; try again in a moment.",
    "MISCONF": "The server cannot write to its disk; look into its log.",
    "NOAUTH": "Put the user and password into the URL: redis://user:password@host:6379.",
    "NOPERM": "Ask for the right; 'jwt-events doctor' tells which are there.",
    "OOM": "The server's memory is full; 'jwt-events doctor' tells more.",
    "READONLY": "That is a replica; use the URL of its primary.",
    "WRONGPASS": "Are the user and password in the URL right?",
    "WRONGTYPE": "Something else than a stream is kept under that name; choose another by --key.",
}
_WHOLE = frozenset({"line", "payload"})
_REACH = "Is a server running there? Say where by --url or JWT_EVENTS_URL; 'jwt-events serve' starts one."


def complaint(error: Exception) -> str:
    """Say in one line what went wrong and, where that is known, what to do."""
    said = message(error)
    told = advice(error)
    return hidden(said if not told else f"{said.rstrip('.')}. {told}")


def message(error: Exception) -> str:
    """Say what went wrong, in the words of the command line: ``--expires-at``, not ``expires_at``."""
    if isinstance(error, InvalidEvent):
        return _NAME.sub(lambda name: option(name[0]), problems(error, option))
    if isinstance(error, InvalidOption):
        return f"{option(error.option)}: {str(error).partition(': ')[2]}"
    return str(error)


def problems(error: InvalidEvent, named: Callable[[str], str] = str) -> str:
    """Say what is wrong with an event, field by field; about the event as a whole comes without a name."""
    told = [(field, problem.removeprefix("Value error, ")) for field, problem in error.problems]
    return "; ".join(problem if field in _WHOLE else f"{named(field)}: {problem}" for field, problem in told)


def advice(error: Exception) -> str:
    """Say what to do; nothing where the message says it all."""
    if isinstance(error, InvalidOption) and error.option == "client_or_url":
        return "For example: redis://localhost:6379."
    if isinstance(error, OutlivesRetention):
        return "Say by --retention what all publishers of this stream use."
    if isinstance(error, PublishOutcomeUnknown):
        return f"Publishing again is safe with the same id: {', '.join(error.event_ids[:3])}."
    if not isinstance(error, TransportError | PublishFailed):
        return ""
    if (code := _CODE.search(str(error))) is not None:
        return _ADVICE.get(code[1], "")
    return _REACH if isinstance(error, ConnectionFailed | PublishFailed) else ""


def option(name: str) -> str:
    """Name a parameter or field as it is named on the command line."""
    return {"client_or_url": "--url", "letter_id": "ID", "event": "the event"}.get(name, "--" + name.replace("_", "-"))


def hidden(text: str) -> str:
    """Make one line of a text, without what could be a token or the password of a URL."""
    return printable(" ".join(_CREDENTIALS.sub("://***@", without_tokens(text)).split()))


def without_tokens(text: str) -> str:
    """Leave out what could be a whole token."""
    return _TOKEN.sub("(a token)", text)


def printable(text: str) -> str:
    """Leave out tokens, and write out what would steer a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in without_tokens(text)
    )


def instant(value: datetime) -> str:
    """Write a point in time: RFC 3339, in UTC, with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(seconds: float) -> str:
    """Write a duration for people."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def fields(**values: object) -> str:
    """Write what is known as ``name=value``, quoted where a shell would need it."""
    return " ".join(f"{name}={_value(value)}" for name, value in values.items() if not _is_empty(value))


def _is_empty(value: object) -> bool:
    return value is None or value is False or value == {}


def _value(value: object) -> str:
    return instant(value) if isinstance(value, datetime) else shlex.quote(str(value))
