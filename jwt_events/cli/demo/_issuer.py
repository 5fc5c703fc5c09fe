"""The issuer of tokens: publishes the events of the first act, and signs and revokes the tokens of the second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from uuid import uuid4

from jwt_events import KeyRotated, Publisher, TokenRevoked
from jwt_events.cli.demo._counts import Pace
from jwt_events.cli.demo._messages import KINDS, Begin, Issue, Issued, Order, Revoke, Revoked
from jwt_events.cli.demo._mix import make_event
from jwt_events.cli.demo._parent import Parent
from jwt_events.cli.demo._reporting import report_until
from jwt_events.cli.demo._tokens import ALGORITHM, SigningKey
from jwt_events.events import Event

# How many events are on their way to the server at once.
_PUBLISHING_TASKS = 64

# Seconds between two revocations, for eyes to follow.
_INTERVAL = 0.04

_LIFETIME = 3600  # of a token, in seconds


async def play(order: Order, parent: Parent) -> None:
    """Do what the parent says, act by act."""
    await _publish(order, parent)
    await _revoke(order, parent)


async def _publish(order: Order, parent: Parent) -> None:
    pace = Pace(order)
    async with Publisher(order.make_transport(), source="demo") as publisher, asyncio.TaskGroup() as tasks:
        parent.send(pace.report())
        await parent.receive(Begin)
        publishing = tasks.create_task(_publish_all(publisher, order, pace))
        await report_until(publishing, parent, pace.report)
    parent.send(pace.report(final=True))


async def _publish_all(publisher: Publisher, order: Order, pace: Pace) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()

    async def keep_publishing() -> None:
        while (planned := pace.next_due()) is not None:
            number, due = planned
            if due:
                await asyncio.sleep(began + due - clock())
            event = make_event(number)
            await publisher.publish(event)
            pace.add(event)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(_PUBLISHING_TASKS, order.events)):
            tasks.create_task(keep_publishing())


class Office:
    """Issues tokens, and knows how to revoke each.

    The tokens that are revoked one by one belong to the same user, and are signed with the same key, as the one that
    stays good: a revocation that reached too far would show.

    Args:
        each: how many tokens for each of `KINDS`.
    """

    def __init__(self, each: int) -> None:
        self._numbers = range(each)
        self._key = SigningKey("main")
        self._leaked_keys = [SigningKey(f"leaked-{number}") for number in self._numbers]
        self._token_ids = [uuid4().hex for _ in self._numbers]
        self._users = [f"user-{number}" for number in self._numbers]

    def issued(self) -> Issued:
        """Sign all tokens."""
        now = int(time.time())

        def token(key: SigningKey, user: str, token_id: str) -> str:
            return key.sign({"jti": token_id, "sub": user, "iat": now, "exp": now + _LIFETIME})

        tokens = [
            *(token(self._key, "somebody", token_id) for token_id in self._token_ids),
            *(token(self._key, user, uuid4().hex) for user in self._users),
            *(token(key, "somebody", uuid4().hex) for key in self._leaked_keys),
            token(self._key, "somebody", uuid4().hex),
        ]
        return Issued(tokens, [key.public() for key in (self._key, *self._leaked_keys)])

    def revocations(self, kind: str) -> Iterator[tuple[int, Event]]:
        """Make what revokes each token of a kind, with the token's number, dated now."""
        for number in self._numbers:
            match kind:
                case "token":
                    event: Event = TokenRevoked(token_id=self._token_ids[number], reason="device lost")
                case "user":
                    event = TokenRevoked(user_id=self._users[number], reason="password changed")
                case _:
                    leaked = self._leaked_keys[number].key_id
                    event = KeyRotated(key_id=leaked, algorithm=ALGORITHM, compromised=True)
            yield KINDS.index(kind) * len(self._numbers) + number, event


async def _revoke(order: Order, parent: Parent) -> None:
    office = Office((await parent.receive(Issue)).each)
    async with Publisher(order.make_durable_transport(), source="demo") as publisher:
        parent.send(office.issued())
        while True:
            for number, event in office.revocations((await parent.receive(Revoke)).kind):
                published_at = time.monotonic()
                await publisher.publish(event)
                parent.send(Revoked(number, published_at, time.monotonic()))
                await asyncio.sleep(_INTERVAL)
