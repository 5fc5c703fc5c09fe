"""Free TCP ports for servers that are down now and then."""

from __future__ import annotations

import functools
import itertools
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

# Below the kernel's ephemeral ports: one of these could be given to another process meanwhile, even to a client that
# tries to connect to it, which would then be connected to itself.
_PORTS = range(12_000, 32_000)
_BLOCK = 200


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, and that no other process of this kind is given.

    The same port is returned again only after many others.
    """
    return next(port for port in _ports() if _is_free(port))


@functools.cache
def _ports() -> Iterator[int]:
    """Return the ports of this process: a block of which it holds the first one until it ends, over and over."""
    blocks = list(range(_PORTS.start, _PORTS.stop, _BLOCK))
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        with socket.socket() as holder, suppress(OSError):
            holder.bind(("127.0.0.1", first))
            holder.detach()  # closed by the kernel, whatever ends the process
            return itertools.cycle(range(first + 1, first + _BLOCK))
    raise OSError("other processes hold all ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
