"""Requests and replies of poll delivery, and the answers that wait to be sent with the next request. Pure.

Source: RFC 8936 §2.2 to §2.5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jwt_events.errors import SignalRefused, TransmitterError
from jwt_events.signals._token import MAX_TOKEN_BYTES

# Of each token: its name, quotes and commas.
_MAX_AROUND_TOKEN = 2_048
_MAX_DESCRIPTION = 256


@dataclass(frozen=True, slots=True)
class PollReply:
    """The reply to a poll.

    Attributes:
        sets: the tokens by the ``jti`` that they are sent under; not checked, so that a bad one is refused alone.
        more: whether more are available.
    """

    sets: dict[str, Any]
    more: bool = False


@dataclass(slots=True)
class Answers:
    """What the transmitter is to be told of tokens: those that are acknowledged, and those that are refused.

    Attributes:
        accepted: the ``jti`` of tokens whose events the server has, or that make none.
        refused: why the others are not accepted, by ``jti``.
    """

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, SignalRefused] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.refused)

    def __len__(self) -> int:
        return len(self.accepted) + len(self.refused)

    def add(self, other: Answers) -> None:
        """Add answers; a later one about the same token counts."""
        for jti in other.accepted:
            self.refused.pop(jti, None)
        self.accepted -= other.refused.keys()
        self.accepted |= other.accepted
        self.refused |= other.refused

    def remove(self, other: Answers) -> None:
        """Remove answers that the transmitter has."""
        self.accepted -= other.accepted
        for jti in other.refused:
            self.refused.pop(jti, None)

    def answers(self, names: Iterable[str]) -> bool:
        """Whether all of these tokens are answered."""
        return all(name in self.accepted or name in self.refused for name in names)

    def copy(self) -> Answers:
        """Return a copy."""
        return Answers({*self.accepted}, {**self.refused})


def max_reply_bytes(max_events: int) -> int:
    """Return the largest reply that so many tokens may need."""
    return 4_096 + max_events * (MAX_TOKEN_BYTES + _MAX_AROUND_TOKEN)


def request_body(answers: Answers, *, max_events: int, at_once: bool) -> dict[str, Any]:
    """Return the JSON of a request.

    Args:
        answers: what to tell of the tokens that came before.
        max_events: how many tokens to return at most; 0 only tells.
        at_once: whether to reply at once; otherwise the transmitter waits until there is a token.
    """
    body: dict[str, Any] = {"maxEvents": max_events, "returnImmediately": at_once}
    if answers.accepted:
        body["ack"] = sorted(answers.accepted)
    if answers.refused:
        body["setErrs"] = {
            jti: {"err": error.err, "description": error.description[:_MAX_DESCRIPTION]}
            for jti, error in answers.refused.items()
        }
    return body


def read_reply(body: bytes) -> PollReply:
    """Parse the body of a reply.

    Raises:
        TransmitterError: it is not a reply to a poll.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _unusable("is not JSON, or has a member twice") from None
    if not isinstance(value, dict):
        raise _unusable("is not a JSON object")
    sets, more = value.get("sets", {}), value.get("moreAvailable", False)
    if not isinstance(sets, dict):
        raise _unusable("has no object `sets`")
    if not isinstance(more, bool):
        raise _unusable("has a `moreAvailable` that is neither true nor false")
    return PollReply(sets, more)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError
    return found


def _unusable(problem: str) -> TransmitterError:
    return TransmitterError(f"the answer of the transmitter {problem}", status=200)
