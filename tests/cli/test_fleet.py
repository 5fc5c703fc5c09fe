"""``jwt-events fleet``, and ``publish --in-force``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.request import urlopen

import pytest

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.fleet import Standing, Status
from jwt_events.metrics import serve_fleet
from tests.support.commands import Outcome, run, run_apart, running
from tests.support.waiting import block_until, scaled, wait_until


@asynccontextmanager
async def instances(url: str, key: str, **options: str) -> AsyncIterator[None]:
    """Open a list for each name, with this value of ``on_stale``."""
    async with AsyncExitStack() as stack:
        for name, on_stale in options.items():
            revocations = RevocationList(
                RedisStream(url, key),
                service="orders",
                instance=name,
                on_stale="allow" if on_stale == "allow" else "deny",
            )
            await stack.enter_async_context(revocations)
        yield


async def told(*words: str, url: str) -> Outcome:
    """Run a command while lists are open in this loop."""
    return await asyncio.to_thread(partial(run_apart, *words, url=url))


async def test_a_fleet(url: str, key: str) -> None:
    """Each instance has a line; the code is 1 if one is in trouble."""
    async with instances(url, key, a="deny"):
        shown = await told("fleet", "--key", key, url=url)
        assert shown.code == 0
        head, row = (line.split("\t") for line in shown.lines)
        assert dict(zip(head, row, strict=True))["instance"] == "orders/a"
        async with instances(url, key, b="allow"):

            async def is_announced() -> bool:
                shown = await told("fleet", "--key", key, "--json", url=url)
                stand = [(one["instance"], one["status"]) for one in shown.records]
                return shown.code == 1 and stand == [("a", "fresh"), ("b", "unsafe")]

            await wait_until(is_announced)
            shown = await told("fleet", "--key", key, "--service", "billing", url=url)
            assert (shown.code, shown.output) == (0, "")
        async with instances(url, key, a="deny"):
            shown = await told("fleet", "--key", key, url=url)
            assert shown.output.count("orders/a (used twice)") == 2
            assert shown.code == 1


async def test_publish_and_wait(url: str, key: str) -> None:
    """``publish --in-force`` says where the event is in force; ``fleet --wait`` says it again."""
    revoke = ("publish", "token-revoked", "--token-id", "t", "--key", key)
    async with instances(url, key, a="deny"):
        shown = await told(*revoke, "--in-force", "orders", url=url)
        assert shown.code == 0
        assert shown.lines[1:] == ["acknowledged: orders/a", "in force by fleet"]
        shown = await told(*revoke, "--in-force", "all", "--json", url=url)
        (record,) = shown.records
        assert record["propagation"]["acknowledged"] == ["orders/a"]
        shown = await told("fleet", "--wait", record["position"], "--key", key, "--json", url=url)
        assert (shown.code, shown.records[0]["acknowledged"]) == (0, ["orders/a"])
    shown = await told(*revoke, "--in-force", "0.1s", url=url)
    assert shown.lines[1:] == ["in force by lease"]


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("two words", "must be 1 to 128"),
        ("", "must be 1 to 128"),
        ("orders,", "must be 1 to 128"),
        ("orders,all", "must be names of services"),
        ("-5s", "must be names of services"),
        ("0s", "must be a positive"),
    ],
)
def test_where_it_cannot_be_in_force(url: str, key: str, where: str, problem: str) -> None:
    """Names and leases that cannot be are one line, and nothing is published."""
    shown = run("publish", "token-revoked", "--token-id", "t", "--key", key, "--in-force", where, url=url)
    assert (shown.code, f"--in-force: {problem}" in shown.complaint) == (2, True)
    assert run("tail", "--start", "all", "--until-current", "--json", "--key", key, url=url).output == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--wait", "now"), "--wait: must be a position"),
        (("--wait", "eu:5-0"), "--wait: must be a position"),
        (("--wait", ""), "--wait: must be a position"),
        (("--wait", "5-0"), "--wait: is beyond the newest event"),
        (("--wait", "0-0", "--within", "0"), "--within: must be a positive"),
        (("--wait", "0-0", "--within", "inf"), "--within: must be a positive"),
        (("--wait", "0-0", "--service", "two words"), "--service: must be 1 to 128"),
        (("--wait", "0-0", "--serve", "0"), "--serve: shows how a fleet stands"),
    ],
)
def test_what_cannot_be_waited_for(url: str, key: str, words: tuple[str, ...], problem: str) -> None:
    """It is one line that names the option, and nothing is waited for."""
    shown = run("fleet", *words, "--key", key, url=url)
    assert (shown.code, problem in shown.complaint, shown.output) == (2, True, "")


async def test_an_event_that_has_not_come(url: str, key: str) -> None:
    """No lease can say anything of an event that may come after it has ended."""
    async with instances(url, key, a="deny"), Publisher(RedisStream(url, key)) as publisher:
        receipt = await publisher.publish(TokenRevoked(token_id="t"))
        milliseconds, _, sequence = str(receipt.position).partition("-")
        shown = await told("fleet", "--wait", f"{milliseconds}-{int(sequence) + 1}", "--key", key, url=url)
        assert (shown.code, shown.output) == (2, "")
        assert f"which is at {receipt.position}" in shown.complaint


def test_nobody(url: str, key: str) -> None:
    """Where no instance has announced itself, or none of a service, a line says so."""
    assert "no instance has announced itself" in run("fleet", "--key", key, url=url).complaint
    shown = run("fleet", "--service", "orders", "--service", "billing", "--key", key, url=url)
    assert "no instance of orders, billing has announced itself" in shown.complaint


def test_an_exporter(url: str, key: str) -> None:
    """It serves the numbers of the moment for as long as it runs."""
    with running("fleet", "--serve", "0", "--key", key, url=url) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def shown() -> str:
            with urlopen(address, timeout=scaled(5)) as response:
                text: str = response.read().decode()
            return text

        async def look() -> None:
            async with instances(url, key, a="deny"):
                line = 'jwt_events_fleet_instances{service="orders",status="fresh"} 1.0'
                await asyncio.to_thread(block_until, lambda: line in shown(), within=20)

        asyncio.run(look())
        block_until(lambda: "orders" not in shown(), within=20)


def test_what_is_shown() -> None:
    """Those that are gone do not count as behind."""

    def standing(status: Status, behind: float) -> Standing:
        return Standing("orders", "a", status, "1-0", behind, 0.0, 0.0, 5.0, "1", "")

    with serve_fleet("127.0.0.1", 0) as (metrics, port):
        metrics.show([standing(Status.BEHIND, 2.0), standing(Status.GONE, 90.0), standing(Status.BEHIND, 1.0)])
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=scaled(5)) as response:
            text = response.read().decode()
    assert 'jwt_events_fleet_behind_seconds{service="orders"} 2.0' in text
    assert 'jwt_events_fleet_instances{service="orders",status="behind"} 2.0' in text
