"""Pushes over HTTP while the event server is killed at every step of them, and a count of what was lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from typing import Any

import httpx
import redis.asyncio
from fastapi import FastAPI

import jwt_events.fastapi
from jwt_events import Publisher, RedisStream
from jwt_events.signals import CAEP, SecurityEvents
from jwt_events.signals._identity import event_id
from jwt_events.testing import Transmitter
from tests.faults.restarting import ALL, Restartable
from tests.support.services import uvicorn_server
from tests.support.waiting import scaled

KEY = "test:killed"
AT_ONCE = 6
WARM_UP = 5  # rounds without a kill, which measure how long a round takes


class Pushing:
    """A transmitter that pushes to a receiver whose server is killed.

    Attributes:
        statuses: the statuses of all pushes, counted.
        unsaid: events that were in the stream although their push was not accepted: the kill hit before the reply.
        lost: ids that were accepted, and not in the stream when the server ran again.
        accepted: the ids of all pushes that were accepted.
    """

    def __init__(self, server: Restartable, rounds: int) -> None:
        self._server = server
        self._rounds = rounds
        self._idp = Transmitter()
        self.statuses: Counter[int] = Counter()
        self.unsaid = 0
        self.lost: set[str] = set()
        self.accepted: set[str] = set()
        self._seen = "-"
        self._longest = 0.0

    async def run(self) -> None:
        """Push while the server is killed; each round kills it a little later; then send the rest again."""
        await self._server.start(ALL)
        async with Publisher(RedisStream(self._server.url, KEY), timeout=scaled(0.1)) as publisher:
            events = SecurityEvents(self._idp.issuer, self._idp.audience, self._idp.keys())
            app = FastAPI()
            app.include_router(jwt_events.fastapi.set_router(publisher, events, rate=1e6))
            async with uvicorn_server(app) as address, httpx.AsyncClient(timeout=scaled(10)) as client:
                self._client, self._url = client, f"http://{address}/events"
                for number in range(WARM_UP):
                    tokens, began = self._tokens(f"warm-up-{number}"), time.monotonic()
                    accepted = await self._push(tokens)
                    if number:  # the first one connects
                        self._longest = max(self._longest, time.monotonic() - began)
                    self.accepted |= accepted | await self._push_rest(tokens, accepted)
                for number in range(self._rounds):
                    await self._round(number)

    def _tokens(self, name: str) -> dict[str, str]:
        tokens: dict[str, str] = {}
        for which in range(AT_ONCE):
            jti = f"{name}-{which}"
            subject = self._idp.subject(f"user-{jti}")
            tokens[jti] = self._idp.security_event(f"{CAEP}session-revoked", subject, jti=jti)
        return tokens

    async def _round(self, number: int) -> None:
        tokens, step = self._tokens(str(number)), self._longest * number / self._rounds
        kill = asyncio.get_running_loop().call_later(step, os.kill, self._server.running.pid, signal.SIGKILL)
        accepted = await self._push(tokens)
        kill.cancel()
        await self._server.kill()
        await self._server.start(ALL)
        found = await self._new()
        self.lost |= accepted - found
        self.unsaid += len(found - accepted)
        accepted |= await self._push_rest(tokens, accepted)
        found |= await self._new()
        self.lost |= accepted - found
        self.accepted |= accepted

    async def _push_rest(self, tokens: dict[str, str], accepted: set[str]) -> set[str]:
        """Push those tokens again that were not accepted, until they are; return the ids of their events."""
        rest = set[str]()
        while left := {jti: token for jti, token in tokens.items() if self._id(jti) not in accepted | rest}:
            rest |= await self._push(left)
        return rest

    async def _push(self, tokens: dict[str, str]) -> set[str]:
        """Push tokens at once; return the ids of the events of those that were accepted."""
        headers = {"Content-Type": "application/secevent+jwt"}
        replies = await asyncio.gather(
            *(self._client.post(self._url, content=token, headers=headers) for token in tokens.values())
        )
        self.statuses.update(reply.status_code for reply in replies)
        pushed = zip(tokens, replies, strict=True)
        return {self._id(jti) for jti, reply in pushed if reply.status_code == 202}

    async def _new(self) -> set[str]:
        """Return the ids of the events that came into the stream since the last call."""
        async with redis.asyncio.Redis.from_url(self._server.url) as client:
            entries: Any = await client.xrange(KEY, min=self._seen)
        if entries:
            self._seen = f"({entries[-1][0].decode()}"
        return {json.loads(value)["id"] for _, fields in entries for value in fields.values()}

    def _id(self, jti: str) -> str:
        return event_id(self._idp.issuer, jti)

    async def all_ids(self) -> list[str]:
        """Return the ids of the events in the stream, one for each entry."""
        async with redis.asyncio.Redis.from_url(self._server.url) as client:
            entries: Any = await client.xrange(KEY)
        return [json.loads(value)["id"] for _, fields in entries for value in fields.values()]


async def push_while_killed(server: Restartable, rounds: int) -> Pushing:
    """Push over HTTP while the server is killed that many times; check that nothing that was accepted is lost."""
    pushing = Pushing(server, rounds)
    await pushing.run()
    assert pushing.lost == set()
    assert len(pushing.accepted) == (rounds + WARM_UP) * AT_ONCE
    assert set(await pushing.all_ids()) == pushing.accepted
    assert set(pushing.statuses) <= {202, 503}
    assert pushing.statuses[503]
    return pushing
