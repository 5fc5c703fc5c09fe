"""A hundred thousand forged tokens: none is accepted, none crashes a receiver, and no memory stays."""

from __future__ import annotations

import base64
import random
import time
import tracemalloc
from collections import Counter

import pytest

from jwt_events import KeysUnavailable
from jwt_events.signals import CAEP, LogoutTokens, SecurityEvents, SignalRefused
from jwt_events.testing import Transmitter

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900)]

NUMBER = 100_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \x00\xe9"
BYTES = b'{}[]":,0123456789eE-+.truefalsn \\u\x00\xff'


def change(token: str, chance: random.Random) -> str:
    """Change characters of a token, bytes inside one of its parts, or the order of the parts."""
    how = chance.randrange(4)
    if how == 0:
        at = chance.randrange(len(token) + 1)
        return token[:at] + "".join(chance.choices(ALPHABET, k=chance.randrange(3))) + token[at + chance.randrange(3) :]
    parts = token.split(".")
    if how == 1:
        return ".".join(chance.choices([*parts, "", "e30"], k=chance.randrange(1, 6)))
    which = chance.randrange(3)
    inside = bytearray(base64.urlsafe_b64decode(parts[which] + "=" * (-len(parts[which]) % 4)))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(inside))
        if how == 2:
            inside[at] = chance.choice(BYTES)
        else:
            inside[at:at] = bytes(chance.choices(BYTES, k=chance.randrange(1, 4)))
    parts[which] = base64.urlsafe_b64encode(inside).rstrip(b"=").decode()
    return ".".join(parts)


async def test_a_hundred_thousand() -> None:
    """Each is refused with a code, or put off for its ``kid``; what all of them took is given back."""
    provider, chance = Transmitter(), random.Random(16)
    events = SecurityEvents(provider.issuer, provider.audience, provider.keys())
    logouts = LogoutTokens(provider.issuer, provider.audience, provider.keys())
    security_event = provider.security_event(f"{CAEP}session-revoked", provider.subject("alice"))
    logout_token = provider.logout_token(sub="alice", sid="s1", exp=int(time.time()) + 100_000)
    assert await events.events(security_event)
    assert (await logouts.event(logout_token)).id
    codes: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for _ in range(NUMBER // 2):
            for good, read in ((security_event, events.events), (logout_token, logouts.event)):
                bad = change(good, chance)
                while bad == good:
                    bad = change(good, chance)
                with pytest.raises((SignalRefused, KeysUnavailable)) as caught:
                    await read(bad)
                codes[getattr(caught.value, "err", "put off")] += 1
                del caught
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert codes.total() == NUMBER
    assert codes["invalid_key"] > NUMBER / 20  # many get as far as the signature
    assert now < 2_000_000
    assert peak < 8_000_000
