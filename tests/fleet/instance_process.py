"""An instance of a service that checks tokens all the time, and says when it last let each of them in.

Usage: ``python -m tests.fleet.instance_process URL KEY INSTANCE MAX_STALENESS TOKENS``

Writes ``ready`` when its list is open. When its standard input ends, it writes a line of JSON: for each token ``t0`` to
``t<TOKENS>`` the time (`time.monotonic`, which all processes of a machine share) at which the last check began that let
it in, and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic

from jwt_events import RedisStream, RevocationList


async def main(url: str, key: str, instance: str, max_staleness: float, tokens: int) -> None:
    """Check until the standard input ends."""
    claims = [{"jti": f"t{number}"} for number in range(tokens)]
    allowed = [0.0] * tokens
    transport = RedisStream(url, key)
    async with RevocationList(
        transport, max_staleness=max_staleness, service="orders", instance=instance, wait=False
    ) as revocations:
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not ended.done():
            for number, claim in enumerate(claims):
                began = monotonic()
                if revocations.check(claim):
                    allowed[number] = began
            await asyncio.sleep(0.001)
    sys.stdout.write(json.dumps(allowed))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])))
