"""Connections that share a buffer to receive in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from jwt_events.transport._redis.protocol import Request, RespProtocol
from jwt_events.transport._redis.receive_buffer import READ_SIZE, ReceiveBuffer
from tests.support.fake_server import text
from tests.transport.test_protocol import connected, sent


def _memory(buffer: ReceiveBuffer) -> object:
    return buffer.acquire().obj


async def test_it_is_shared() -> None:
    """Connections of a loop receive in the same memory, one after another."""
    loop = asyncio.get_running_loop()
    buffers = [ReceiveBuffer(loop) for _ in range(3)]
    memories = []
    for buffer in [*buffers, *buffers]:
        memories.append(_memory(buffer))
        assert memories[-1] is _memory(buffer)  # asked for again, as nothing had arrived
        assert len(buffer.acquire()) == READ_SIZE
        buffer.release()
        buffer.release()
    assert all(memory is memories[0] for memory in memories)


async def test_another_one_has_it() -> None:
    """A connection that asks for it meanwhile gets one of its own, and keeps that."""
    loop = asyncio.get_running_loop()
    first, second, third = (ReceiveBuffer(loop) for _ in range(3))
    shared, own = _memory(first), _memory(second)
    assert own is not shared
    second.release()
    assert _memory(first) is shared
    first.release()
    assert _memory(third) is shared
    first.release()  # it has not got it
    third.release()
    assert _memory(second) is own


def test_another_loop() -> None:
    """Each loop has a buffer: they may run in two threads at the same time."""

    async def memory() -> object:
        buffer = ReceiveBuffer(asyncio.get_running_loop())
        try:
            return _memory(buffer)
        finally:
            buffer.release()

    assert asyncio.run(memory()) is not asyncio.run(memory())


async def test_a_connection_that_is_closed() -> None:
    """A connection that is lost before anything has arrived lets others have the buffer."""
    async with connected() as (other, _):
        async with connected() as (protocol, _):
            memory = protocol.get_buffer(-1).obj
        assert other.get_buffer(-1).obj is memory


async def _receive(arrivals: Sequence[tuple[int, bool]]) -> None:
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(connected()) for _ in range(3)]
        protocols: list[RespProtocol] = [protocol for protocol, _ in ends]
        filled: dict[int, int] = {}  # how many bytes each has in its buffer
        expected: list[list[bytes]] = [[] for _ in protocols]
        requests: list[list[Request]] = [[] for _ in protocols]
        for number, (index, is_told) in enumerate(arrivals):
            protocol = protocols[index]
            if index not in filled:
                value = b"%d of %d" % (number, index)
                reply = text(value)
                requests[index].append(sent(protocol, "a"))
                expected[index].append(value)
                protocol.get_buffer(-1)[: len(reply)] = reply
                filled[index] = len(reply)
            if is_told:
                protocol.buffer_updated(filled.pop(index))
        for index, size in filled.items():
            protocols[index].buffer_updated(size)
        replies = [[reply for request in mine for reply in request.replies] for mine in requests]
        assert replies == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_a_loop_that_tells_later(arrivals: list[tuple[int, bool]]) -> None:
    """What one connection has received is not overwritten by another, in whatever order a loop fills and tells."""
    asyncio.run(_receive(arrivals))
