"""Every command, given the URL of a cluster and a key without a hash tag."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from jwt_events import Fleet, Publisher, RedisStream, RevocationList, TokenRevoked
from tests.support.cluster import Cluster
from tests.support.commands import Outcome, run, run_apart
from tests.support.waiting import scaled, wait_until


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Any]:
    """A client of the cluster, to prepare its keys."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        yield client


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The URL of the cluster."""
    return cluster.url


def test_publish_and_read(url: str, key: str) -> None:
    """What is published is shown by tail, and revokes for check."""
    for name in ("a", "b"):
        assert run("publish", "token-revoked", "--token-id", name, "--key", key, url=url).code == 0
    told = run("tail", "--start", "all", "--until-current", "--json", "--key", key, url=url)
    assert [record["subject"] for record in told.records] == ["a", "b"]
    assert run("check", "--key", key, url=url, given='{"jti": "a"}').code == 1
    assert run("check", "--key", key, url=url, given='{"jti": "c"}').code == 0


def test_groups(url: str, key: str, client: Any) -> None:
    """Groups and their lag."""
    client.xadd(key, {"event": "{}"})
    client.xgroup_create(key, "g", "0")
    (found,) = run("groups", "--key", key, "--json", url=url).records
    assert found["name"] == "g"


async def test_a_single_server(own_server: Any, key: str) -> None:
    """The complaint says what to write, and does not ask whether a server is there."""
    async with own_server(port=0) as server:
        url = server.url.replace("redis://", "redis+cluster://")
        for command in (("publish", "token-revoked", "--token-id", "a"), ("tail",), ("groups",), ("doctor",)):
            told = await asyncio.to_thread(run_apart, *command, "--key", key, url=url)
            assert told.code == 2
            assert "is a single server, no node of a cluster: use a URL without +cluster" in told.errors
            assert "Is a server running there" not in told.errors


async def test_groups_of_one_node(cluster: Cluster, key: str) -> None:
    """The URL of a node that does not own the stream leads to the one that does."""
    (other, *_), owner = await cluster.others(key), await cluster.owner_of(key)
    await owner.call("XGROUP", "CREATE", key, "g", "0", "MKSTREAM")
    told = await asyncio.to_thread(run_apart, "groups", "--key", key, "--json", url=other.url)
    assert [record["name"] for record in told.records] == ["g"]


def test_dead_letters(url: str, key: str, client: Any) -> None:
    """They are listed and replayed; those that were copied from one server are told, and brought over."""
    run("publish", "token-revoked", "--token-id", "a", "--key", key, url=url)
    ((_, fields),) = client.xrange(key)
    client.xadd(f"{{{key}}}:dead", fields | {"error": "ValueError", "handler": "fail"})
    client.xadd(f"{key}:dead", fields | {"error": "KeyError", "handler": "fail"})
    told = run("dead", "list", "--key", key, "--json", url=url)
    assert [record["error"] for record in told.records] == ["ValueError"]
    assert f"1 more lie in '{key}:dead'; 'jwt-events dead take-over' brings them here" in told.errors
    assert run("dead", "take-over", "--key", key, "--json", url=url).records[0]["taken_over"] == 1
    told = run("dead", "list", "--key", key, "--json", url=url)
    assert [record["error"] for record in told.records] == ["ValueError", "KeyError"]
    assert told.errors == ""
    assert run("dead", "replay", "--all", "--key", key, url=url).code == 0
    assert client.xlen(key) == 3
    assert run("dead", "take-over", "--key", key, url=url).lines[0].startswith("taken_over=0 ")


def test_dead_letters_elsewhere(url: str, key: str) -> None:
    """A name in another slot is refused, with one that works."""
    told = run("dead", "list", "--key", key, "--dead-letter", f"{key}:dead", url=url)
    assert told.code == 2
    assert f"give it the hash tag of the stream: {{{key}}}:{key}:dead" in told.complaint


async def test_ledger(cluster: Cluster, key: str) -> None:
    """The ledger beside the stream, folded by a publisher."""
    transport = RedisStream(cluster.url, key, retention=timedelta(milliseconds=1))
    async with Publisher(transport) as publisher:
        await publisher.publish(TokenRevoked(token_id="a"))

        async def is_folded() -> bool:
            return bool(await (await cluster.owner_of(key)).call("EXISTS", transport.keys.ledger))

        await wait_until(is_folded)
    told = await apart("ledger", "--key", key, "--json", url=cluster.url)
    (found,) = told.records
    assert (found["key"], found["entries"], found["lost"]) == (f"{{{key}}}:ledger", 1, 0)
    assert found["to_be_taken_over"] is None


def test_ledger_to_be_taken_over(url: str, key: str, client: Any) -> None:
    """A ledger that was copied from one server is shown as such, and taken over by the next folding."""
    client.zadd(f"{key}:ledger", {b"\x001 0-0 0 0 0 0 0": float("-inf"), b"ta": 2**40})
    client.zadd(f"{key}:retention", {"longest": 3_600_000})
    told = run("ledger", "--key", key, url=url)
    assert told.code == 0
    assert f"to be taken over\t{key}:ledger" in told.output
    assert run("ledger", "fold", "--key", key, url=url).lines == ["folded: 0 events"]
    assert "to be taken over" not in run("ledger", "--key", key, url=url).output
    assert not client.exists(f"{key}:ledger")


async def test_fleet(cluster: Cluster, key: str) -> None:
    """The instances that announced themselves."""
    transport = RedisStream(cluster.url, key)
    async with (
        RevocationList(transport, service="orders", instance="one"),
        Publisher(transport, timeout=scaled(10)) as publisher,
    ):
        await publisher.publish(
            TokenRevoked(token_id="a"), in_force=Fleet("orders", timeout=scaled(5.0)), timeout=scaled(10)
        )
        told = await apart("fleet", "--key", key, "--json", url=cluster.url)
    assert [record["instance"] for record in told.records] == ["one"]


def test_doctor(url: str, key: str, client: Any) -> None:
    """It finds the same as on a server, and what was copied under plain names."""
    run("publish", "token-revoked", "--token-id", "a", "--key", key, url=url)
    client.xadd(f"{key}:dead", {"event": "a"})
    client.zadd(f"{key}:ledger", {b"\x001 0-0 0 0 0 0 0": float("-inf"), b"ta": 2**40})
    told = run("doctor", "--key", key, "--json", url=url)
    texts = [record["text"] for record in told.records]
    assert f"1 more lie in '{key}:dead'" in texts
    assert f"'{key}:ledger' is to be taken over" in texts
    levels = {record["topic"]: record["level"] for record in told.records if record["topic"].startswith("rights: ")}
    assert set(levels.values()) == {"ok"}


async def apart(*words: str, url: str | None = None) -> Outcome:
    """Run a command beside this event loop."""
    return await asyncio.to_thread(run_apart, *words, url=url)


def test_the_url_of_one_node(cluster: Cluster, key: str, client: Any) -> None:
    """Given the URL of a node, commands find what lies in the slot of the stream, or say which URL to write."""
    client.xadd(key, {"event": "{}"})
    client.xadd(f"{{{key}}}:dead", {"event": "a", "error": "KeyError"})
    client.zadd(f"{{{key}}}:ledger", {b"\x001 0-0 0 0 0 0 0": float("-inf"), b"ta": 2**40})
    for node in cluster.nodes[:3]:
        told = run("dead", "list", "--key", key, "--json", url=node.url)
        assert [record["error"] for record in told.records] == ["KeyError"]
        (found,) = run("ledger", "--key", key, "--json", url=node.url).records
        assert (found["key"], found["entries"]) == (f"{{{key}}}:ledger", 1)
        assert run("fleet", "--key", key, url=node.url).code != 2
        told = run("groups", "--key", key, url=node.url)
        assert told.code == 0 or "is a node of a cluster; write JWT_EVENTS_URL as redis+cluster://" in told.complaint


async def test_demo(cluster: Cluster) -> None:
    """The demo runs on a cluster, and leaves nothing there."""
    before = [await node.call("DBSIZE") for node in cluster.nodes]
    told = await apart("demo", "--json", "--url", cluster.url)
    assert told.code == 0
    assert told.records[0]["lost"] == told.records[0]["stale_allows"] == 0
    assert [await node.call("DBSIZE") for node in cluster.nodes] == before
