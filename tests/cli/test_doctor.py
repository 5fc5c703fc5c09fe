"""``jwt-events doctor``: findings from facts, and facts from real servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events.cli._groups import Consumer, Group
from jwt_events.cli.doctor._addresses import Announced
from jwt_events.cli.doctor._cluster import ClusterFacts
from jwt_events.cli.doctor._facts import Facts
from jwt_events.cli.doctor._finding import Finding, Level
from jwt_events.cli.doctor._findings import findings
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis.membership import Membership
from jwt_events.transport._redis.survey import SentinelReply, Survey
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.ledger import LedgerSummary
from tests.support.cluster import Cluster, key_in
from tests.support.commands import Outcome, run, run_apart
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.servers import OWN_KINDS, Server, shared
from tests.support.topology import SERVICE, topology
from tests.support.waiting import wait_until

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]

HEALTHY: dict[str, Any] = {
    "scheme": "rediss",
    "is_local": False,
    "key": "k",
    "retention": timedelta(days=1),
    "info": {
        "redis_version": "7.2.4",
        "valkey_version": "9.1.2",
        "role": "master",
        "connected_slaves": "1",
        "slave0": "ip=h,port=1,state=online,offset=1,lag=0",
    },
    "settings": {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "min-replicas-to-write": "1",
        "min-replicas-max-lag": "3",
        "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    },
    "skew": 0.01,
    "clock": 1_000_000.0,
    "stream": StreamInfo("999000000-0", "999000000-0", 1, 1),
    "sample": [True],
    "dead_letters": 0,
    "groups": [],
    "lacking": {"publisher": [], "subscriber": []},
}


LAGS = {f"slave{index}": f"ip=h,port={index},state=online,offset=1,lag=1" for index in range(2)}


def survey(*named: str | None, quorum: int = 2, down_after: float = 1.0) -> Survey:
    """What Sentinels say that name these hosts; ``None`` for one that does not reply."""
    replies = {
        f"s{index}": None
        if host is None
        else SentinelReply((host, 1), quorum=quorum, voters=len(named), down_after=down_after)
        for index, host in enumerate(named)
    }
    return Survey("main", replies)


def judged(**changes: Any) -> dict[str, Finding]:
    """Findings on a healthy server with these changes, without those that are fine."""
    facts = HEALTHY | {name: value for name, value in changes.items() if name not in {"info", "settings"}}
    facts |= {name: HEALTHY[name] | changes.get(name, {}) for name in ("info", "settings")}
    found = findings(Facts(**facts), durable=True)
    return {finding.topic: finding for finding in found if finding.level is not Level.OK}


def group(*consumers: Consumer, lag: int | None = 0) -> Group:
    """A group with these consumers."""
    return Group("mailer", lag, sum(consumer.pending for consumer in consumers), "1-1", consumers)


LEDGER = LedgerSummary(
    key="k:ledger",
    exists=True,
    entries=9,
    endless=2,
    keys=1,
    bytes=900,
    folded_up_to="998000000-0",
    events=1,
    oldest="999000000-0",
    lost=0,
    lost_at=None,
    clock=1_000_000.0,
    is_folding=False,
)

CLUSTER = ClusterFacts("h:1", True, Membership(True, True, 3, 3), {"cluster_slots_ok": "16384"})
IN_CLUSTER = {"cluster-node-timeout": "2000", "cluster-allow-reads-when-down": "no"}


def in_cluster(facts: ClusterFacts = CLUSTER, **settings: str) -> dict[str, Any]:
    """Changes that make the server a node of a cluster."""
    changed = {name.replace("_", "-"): value for name, value in settings.items()}
    return {"cluster": facts, "settings": IN_CLUSTER | changed}


UNREACHED = {f"10.0.0.1:{port}": f"connecting to 10.0.0.1:{port} failed: no answer in time" for port in range(5)}

NO_LEDGER = replace(LEDGER, exists=False, entries=0, endless=0, keys=0, folded_up_to=None, lost=None)


class TestFindings:
    """Findings from facts."""

    def test_healthy(self) -> None:
        """All findings on a healthy server are fine."""
        assert judged() == judged(ledger=LEDGER) == judged(ledger=NO_LEDGER) == {}
        assert judged(survey=survey("h", "h", "h"), priorities=[100, 100]) == {}
        assert judged(settings={"min-replicas-to-write": "0"}, replicas=1) == {}
        assert judged(**in_cluster()) == {}
        assert "node timeout" not in judged(**in_cluster(cluster_node_timeout="15000"), max_staleness=20.0)

    @pytest.mark.parametrize(
        ("changes", "topic", "level"),
        [
            ({"info": {"redis_version": "6.0.16", "valkey_version": ""}}, "version", Level.PROBLEM),
            ({"info": {"role": "slave"}}, "replicas", Level.PROBLEM),
            ({"info": {"connected_slaves": "0"}}, "replicas", Level.NOTE),
            ({"survey": survey("h", "h", None), "priorities": [1]}, "sentinels", Level.WARNING),
            ({"survey": survey("h", "h", "other"), "priorities": [1]}, "sentinels", Level.WARNING),
            ({"survey": survey("h", quorum=1), "priorities": [1]}, "sentinels", Level.WARNING),
            ({"survey": survey("h", "h", "h", down_after=30.0), "priorities": [1]}, "sentinels", Level.NOTE),
            ({"survey": survey("h", None, None)}, "sentinels", Level.PROBLEM),
            ({"survey": survey("h", "h", "h")}, "promotion", Level.UNKNOWN),
            ({"survey": survey("h", "h", "h"), "priorities": []}, "promotion", Level.PROBLEM),
            ({"survey": survey("h", "h", "h"), "priorities": [0, 0]}, "promotion", Level.PROBLEM),
            ({"survey": survey("h", "h", "h"), "priorities": [0, 100]}, "promotion", Level.WARNING),
            ({"survey": survey("h", "h", "h"), "priorities": [10, 100]}, "promotion", Level.WARNING),
            ({"replicas": 2}, "replicas", Level.PROBLEM),
            ({"replicas": 1, "info": {"slave0": "ip=h,port=1,state=online,offset=1,lag=9"}}, "replicas", Level.WARNING),
            ({"max_staleness": 2.0}, "old primary", Level.NOTE),
            ({"replicas": 1, "info": {"connected_slaves": "2", **LAGS}}, "replicas", Level.NOTE),
            (in_cluster(replace(CLUSTER, membership=Membership(False, True, 3, 3))), "cluster", Level.PROBLEM),
            (in_cluster(replace(CLUSTER, membership=Membership(True, True, 3, 1))), "cluster", Level.PROBLEM),
            (in_cluster(replace(CLUSTER, membership=Membership(True, True, 1, 1))), "cluster", Level.WARNING),
            (in_cluster(replace(CLUSTER, membership=None)), "cluster", Level.PROBLEM),
            (in_cluster(replace(CLUSTER, fields={"cluster_slots_ok": "16383"})), "cluster", Level.WARNING),
            (in_cluster(replace(CLUSTER, is_named=False)), "cluster URL", Level.WARNING),
            (in_cluster(replace(CLUSTER, contradicting=["h:1"])), "owner", Level.PROBLEM),
            (in_cluster(cluster_allow_reads_when_down="yes"), "reads when down", Level.PROBLEM),
            (in_cluster(cluster_node_timeout="15000"), "node timeout", Level.NOTE),
            (in_cluster(cluster_node_timeout=""), "node timeout", Level.UNKNOWN),
            ({"announced": Announced("nodes", 6, UNREACHED)}, "addresses of nodes", Level.WARNING),
            ({"announced": Announced("replicas", 6, UNREACHED)}, "addresses of replicas", Level.NOTE),
            (
                {"announced": Announced("replicas", 5, UNREACHED), "survey": survey("h", "h", "h"), "priorities": [1]},
                "addresses of replicas",
                Level.WARNING,
            ),
            ({"settings": {"min-replicas-to-write": "0"}}, "old primary", Level.NOTE),
            ({"settings": {"min-replicas-max-lag": "10"}}, "old primary", Level.NOTE),
            ({"settings": {"min-replicas-to-write": "2"}}, "old primary", Level.PROBLEM),
            ({"settings": {"appendfsync": "everysec"}}, "persistence", Level.NOTE),
            ({"settings": {"appendonly": "no"}}, "persistence", Level.PROBLEM),
            ({"settings": {"appendonly": "no", "save": "3600 1"}}, "persistence", Level.WARNING),
            ({"info": {"aof_last_write_status": "err"}}, "persistence", Level.PROBLEM),
            ({"settings": {"maxmemory-policy": "allkeys-lru"}}, "eviction", Level.WARNING),
            ({"settings": {"maxmemory-policy": "allkeys-lru", "maxmemory": "1000"}}, "eviction", Level.PROBLEM),
            ({"settings": {"client-output-buffer-limit": "normal 1000 0 0 pubsub 0 0 0"}}, "buffers", Level.WARNING),
            ({"settings": {"client-output-buffer-limit": "normal 0 0 0 pubsub 0 1000 9"}}, "buffers", Level.WARNING),
            ({"skew": -1.5}, "clock", Level.WARNING),
            ({"skew": None}, "clock", Level.UNKNOWN),
            ({"lacking": {"publisher": [], "subscriber": ["XREAD"]}}, "rights: subscriber", Level.NOTE),
            ({"lacking": {"publisher": ["XTRIM"]}}, "rights: publisher", Level.WARNING),
            ({"lacking": {"publisher": None}}, "rights: publisher", Level.UNKNOWN),
            ({"scheme": "redis"}, "tls", Level.WARNING),
            ({"stream": None}, "stream", Level.UNKNOWN),
            ({"stream": StreamInfo("1-0", "1-0", 1, 1)}, "stream", Level.WARNING),
            ({"stream": StreamInfo()}, "stream", Level.WARNING),
            ({"sample": [False, False]}, "stream", Level.WARNING),
            ({"ledger": "NOPERM"}, "ledger", Level.WARNING),
            ({"ledger": replace(LEDGER, lost=2)}, "ledger", Level.WARNING),
            ({"ledger": replace(LEDGER, lock_is_foreign=True)}, "ledger", Level.WARNING),
            ({"ledger": replace(LEDGER, lost=None)}, "ledger", Level.WARNING),
            ({"ledger": replace(LEDGER, entries=90_000, endless=80_000)}, "ledger", Level.NOTE),
            ({"ledger": NO_LEDGER, "stream": StreamInfo("999000000-0", "999000000-0", 9, 1)}, "ledger", Level.WARNING),
            ({"dead_letters": 3}, "dead letters", Level.WARNING),
            ({"dead_letters": None}, "dead letters", Level.UNKNOWN),
            ({"groups": None}, "groups", Level.UNKNOWN),
            ({"groups": [group(Consumer("a", 1, 61.0))]}, "groups", Level.WARNING),
            ({"groups": [group(lag=7)]}, "groups", Level.WARNING),
            ({"groups": [group(lag=None)]}, "groups", Level.WARNING),
        ],
    )
    def test_finding(self, changes: dict[str, Any], topic: str, level: Level) -> None:
        """Each problem is one finding, with advice."""
        found = judged(**changes)
        assert {name: finding.level for name, finding in found.items()} == {topic: level}
        assert found[topic].advice

    def test_group_at_work(self) -> None:
        """Neither a living consumer nor an idle one without pending events is dead."""
        members = (Consumer("a", 5, 0.5), Consumer("b", 0, 9_999.0))
        assert judged(groups=[group(*members, lag=3), group(*members, lag=None)]) == {}

    def test_rights_on_a_server_that_cannot_say(self) -> None:
        """No right helps a user to ask what this version has no command for."""
        changes = {"info": {"redis_version": "6.2.14", "valkey_version": ""}, "lacking": {"publisher": None}}
        ((topic, finding),) = judged(**changes).items()
        assert (topic, finding.level) == ("rights: publisher", Level.UNKNOWN)
        assert "Redis 7" in finding.text
        assert "grant" not in finding.advice

    @pytest.mark.parametrize(
        "changes",
        [{"sample": None}, {"sample": [False, True]}, {"stream": StreamInfo(None, "5-0", 5, 0), "sample": []}],
    )
    def test_stream_in_use(self, changes: dict[str, Any]) -> None:
        """One event is enough, a stream may have become empty, and what may not be read is no reason to warn."""
        assert judged(**changes) == {}

    def test_unknown(self) -> None:
        """A fact that the user may not see is unknown, not a problem."""
        found = findings(Facts("rediss", is_local=False, key="k", retention=timedelta(days=1)), durable=True)
        assert {finding.level for finding in found} == {Level.OK, Level.UNKNOWN}
        assert all(finding.advice for finding in found if finding.level is Level.UNKNOWN)


def examined(server: Server, *words: str, user: str | None = None) -> tuple[Outcome, dict[str, dict[str, str]]]:
    """Examine a server, perhaps as some user; return the outcome and the findings by topic."""
    url = server.url if user is None else server.url.replace("://", f"://{user}:secret@")
    told = run("doctor", "--json", *words, url=url)
    assert "secret" not in told.output + told.errors
    return told, {record["topic"]: record for record in told.records}


@pytest.fixture(params=OWN_KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, in which it may create users and change settings."""
    with shared(request.param) as server:
        yield server


class TestDoctor:
    """The command on real servers."""

    def test_server_of_the_tests(self, server: Server, key: str) -> None:
        """It has a finding on every topic, warns that nothing is kept, and counts the warnings."""
        told, found = examined(server, "--key", key)
        assert (told.code, told.errors) == (1, "")
        assert {"version", "replicas", "persistence", "eviction", "buffers", "clock", "tls", "stream", "groups"} <= set(
            found
        )
        assert found["persistence"]["level"] == "warning"
        assert {record["level"] for topic, record in found.items() if topic.startswith("rights")} == {"ok"}
        warnings = sum(record["level"] == "warning" for record in found.values())  # a second one if it is not local
        _, found = examined(server, "--transport", "pubsub", "--channel", key)
        known = "unknown" if server.inspector.info("server")["redis_version"].startswith("6.") else "ok"
        assert {record["level"] for topic, record in found.items() if topic.startswith("rights")} == {known}
        plain = run("doctor", "--key", key, url=server.url)
        assert f"{warnings} warning" in plain.lines[-1]

    def test_settings(self, own: Server) -> None:
        """A server that is set up well has no warning; one that evicts streams has a problem; a replica, too."""
        assert run("publish", "token-revoked", "--token-id", "t", url=own.url).code == 0
        own.inspector.config_set("appendonly", "yes")
        own.inspector.config_set("appendfsync", "always")
        assert examined(own)[0].code == 0
        assert examined(own, "--transport", "pubsub")[0].code == 0
        own.inspector.config_set("maxmemory-policy", "allkeys-lru")
        own.inspector.config_set("maxmemory", "100mb")
        told, found = examined(own)
        assert (told.code, found["eviction"]["level"]) == (1, "problem")
        own.inspector.replicaof("127.0.0.1", "1")
        told, found = examined(own)
        assert (told.code, found["replicas"]["level"]) == (1, "problem")

    @pytest.mark.parametrize("is_named", [True, False])
    async def test_cluster(self, cluster: Cluster, key: str, *, is_named: bool) -> None:
        """It says who owns the key, and that a URL names one node; the rights to find the owner are among those."""
        tagged = f"{{{key}}}"
        owner, (other, *_) = await cluster.owner_of(tagged), await cluster.others(tagged)
        url = cluster.url_of(other) if is_named else other.url
        told = await asyncio.to_thread(run_apart, "doctor", "--key", tagged, "--json", url=url)
        found = {record["topic"]: record for record in told.records}
        assert found["cluster"]["level"] == "ok"
        assert f"{owner.address} owns the key; 3 of 3 primaries in contact" in found["cluster"]["text"]
        assert ("cluster URL" in found) is not is_named
        assert found["node timeout"]["level"] == "ok"
        assert {record["level"] for topic, record in found.items() if topic.startswith("rights")} == {"ok"}

    async def test_announced_addresses(self, own_cluster: MakeCluster, key: str) -> None:
        """A node that announces an address where it cannot be reached is told, although the key is another one's."""
        port = free_port()
        own = [{}, {"cluster-announce-port": str(port)}]
        async with own_cluster(primaries=2, replicas=0, own_configs=own) as cluster:
            url = cluster.url_of(cluster.nodes[0])
            # What a single server had for the key may lie on either node: an unreached one is told of, too.
            for owned in (key_in(0, f"{key}:{number}", of=2) for number in range(8)):
                told = await asyncio.to_thread(run_apart, "doctor", "--key", owned, "--json", url=url)
                found = {record["topic"]: record for record in told.records}["addresses of nodes"]
                assert (told.code, found["level"]) == (1, "warning")
                assert f"1 of 2 cannot be reached from here: connecting to 127.0.0.1:{port}" in found["text"]
                assert "address_remap" in found["advice"]

    async def test_two_clusters(self, own_cluster: MakeCluster, key: str) -> None:
        """A node in the URL that names another owner is told."""
        async with own_cluster(primaries=1, replicas=0) as cluster, own_cluster(primaries=1, replicas=0) as other:
            url = cluster.url_of(*cluster.nodes, *other.nodes)
            told = await asyncio.to_thread(run_apart, "doctor", "--key", key, "--json", url=url)
            found = {record["topic"]: record for record in told.records}["owner"]
            assert (told.code, found["level"]) == (1, "problem")
            first, second = cluster.nodes[0].address, other.nodes[0].address
            assert found["text"] in {
                f"{first} names another owner than {second}",
                f"{second} names another owner than {first}",
            }

    async def test_announced_replica(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A replica that announces an address where it cannot be reached is told; one that can be is fine."""
        async with own_server(port=0, config={"repl-diskless-sync-delay": "0"}) as primary:
            at = urlsplit(primary.url)
            config = {"replicaof": f"{at.hostname} {at.port}"}

            async def is_followed() -> bool:
                async with Redis.from_url(primary.url) as client:
                    return bool((await client.info("replication")).get("slave0", {}).get("state") == "online")

            async def told() -> dict[str, Any]:
                found = await asyncio.to_thread(run_apart, "doctor", "--json", url=primary.url)
                return {record["topic"]: record for record in found.records}.get("addresses of replicas", {})

            async def is_fine() -> bool:
                return (await told()).get("level") == "ok"

            async def is_noted() -> bool:
                found = await told()
                return found.get("level") == "note" and "to 127.0.0.1:1 " in found["text"]

            async with own_server(port=0, config=config):
                await wait_until(is_followed, within=30)
                await wait_until(is_fine, within=30)
            async with own_server(port=0, config=config | {"replica-announce-port": "1"}):
                await wait_until(is_followed, within=30)
                await wait_until(is_noted, within=30)

    def test_stream_and_groups(self, own: Server) -> None:
        """It reports the age of the oldest event, dead letters, and consumers that died with pending events."""
        _, found = examined(own, "--key", "k")
        assert (found["stream"]["level"], found["stream"]["advice"]) == ("note", "Is --key that of the publishers?")
        assert "'k' holds nothing" in found["stream"]["text"]
        own.inspector.set("orders", "of another program")
        assert examined(own, "--key", "k")[1]["stream"]["level"] == "warning"
        own.inspector.hset("k:fleet", "a service", "waits for events")
        assert examined(own, "--key", "k")[1]["stream"]["level"] == "note"
        assert run("publish", "token-revoked", "--token-id", "t", "--key", "k", url=own.url).code == 0
        inspector: Any = own.inspector
        inspector.xadd("k:dead", {"event": "a"})
        inspector.xgroup_create("k", "mailer", "0")
        ((_, ((position, _),)),) = inspector.xreadgroup("mailer", "one", {"k": ">"})
        inspector.xclaim("k", "mailer", "one", 0, [position], idle=3_600_000)
        _, found = examined(own, "--key", "k")
        assert "holds 1 event," in found["stream"]["text"]
        assert "'mailer': lag 0, 1 pending" in found["groups"]["text"]
        assert (found["dead letters"]["level"], found["dead letters"]["text"]) == ("warning", "1")

    def test_stream_of_another_program(self, own: Server) -> None:
        """It warns of a stream in which no entry is an event, and does not mind foreign entries between events."""
        for _ in range(30):
            own.inspector.xadd("orders", {"item": "book"})
        told, found = examined(own, "--key", "orders")
        assert told.code == 1
        assert "none of 20 looked at is an event" in found["stream"]["text"]
        assert run("publish", "token-revoked", "--token-id", "t", "--key", "orders", url=own.url).code == 0
        _, found = examined(own, "--key", "orders")
        assert found["stream"]["level"] == "ok"

    @pytest.mark.parametrize(
        ("granted", "lacking"),
        [
            ("+@all", {}),
            ("+xadd +xtrim +time", {"revocation list": "XREAD", "subscriber": "XREAD"}),
            ("+xread +xrange +xinfo|stream +info", {"publisher": "XADD", "subscriber": "SET", "dead letters": "XDEL"}),
            ("+ping", {"publisher": "XADD, XTRIM, TIME"}),
            ("+@all -acl", {}),
            ("+@all -acl -xtrim", {"publisher": "lacks XTRIM"}),
            ("+@all -acl -zadd", {"publisher": "lacks ZADD"}),
            ("+@all -zadd", {"publisher": "lacks ZADD", "poller of signals": "lacks ZADD"}),
            ("+@all -eval", {"poller of signals": "lacks EVAL", "subscriber in a group": "EVAL"}),
            ("+@all -pttl -acl", {"poller of signals": "lacks PTTL"}),
        ],
    )
    def test_rights(self, own: Server, granted: str, lacking: dict[str, str]) -> None:
        """It names the rights that a user lacks for each role, with and without the right to use ACL commands."""
        words = ("ACL", "SETUSER", "u", "reset", "on", ">secret", "~k*", "~{k}:*", "&*", *granted.split())
        own.inspector.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        told, found = examined(own, "--key", "k", user="u")
        assert told.errors == ""
        rights = {topic.removeprefix("rights: "): one for topic, one in found.items() if topic.startswith("rights")}
        assert len(rights) == 6
        for role, finding in rights.items():
            if role in lacking:
                assert lacking[role] in finding["text"]
            elif not lacking:
                assert finding["level"] == "ok"
        assert own.keys() == set()

    def test_new_server(self, own: Server) -> None:
        """A server that is set up well and that nobody has used yet is fine."""
        own.inspector.config_set("appendonly", "yes")
        told, found = examined(own)
        assert (told.code, found["stream"]["level"]) == (0, "note")

    def test_another_ledger(self, own: Server) -> None:
        """The ledger has the name that publishers gave it."""
        own.inspector.set("rules", "of another type")
        _, found = examined(own, "--key", "k", "--ledger", "rules")
        assert "rules" in found["ledger"]["text"]
        assert found["ledger"]["level"] == "warning"
        assert examined(own, "--key", "k")[1]["ledger"]["level"] == "ok"
        told = run("doctor", "--transport", "pubsub", "--ledger", "rules", url=own.url)
        assert (told.code, "ledger: is for --transport stream" in told.complaint) == (2, True)

    def test_rights_on_a_key(self, own: Server) -> None:
        """The right to use a command on one key does not extend to other keys."""
        words = ("ACL", "SETUSER", "u", "reset", "on", ">secret", "~k", "~k:retention", "~k:ledger*", "+@all", "-acl")
        own.inspector.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        _, found = examined(own, "--key", "k", user="u")
        assert found["rights: publisher"]["level"] == "ok"
        assert "XADD on 'k:dead', SET on 'k:dead:*', GET on 'k:dead:*'" in found["rights: subscriber"]["text"]
        _, found = examined(own, "--transport", "pubsub", user="u")
        assert found["rights: publisher"]["level"] == "unknown"


class TestSentinels:
    """The command behind real Sentinels."""

    async def test_promotion(self, own_server: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
        """It knows from a Sentinel which replicas may be promoted, and has a problem if none may."""
        async with topology(own_server, tmp_path) as servers:
            for client in servers.clients[1:]:
                await client.config_set("replica-priority", 0)

            async def are_heard() -> bool:
                for one in servers.sentinels:
                    async with one.client as client:
                        reply = await call(client, "SENTINEL", "REPLICAS", SERVICE)
                    if any(int(dict(replica)[b"slave-priority"]) for replica in reply):
                        return False
                return True

            await wait_until(are_heard, within=30.0, what="the Sentinels to hear of it")
            told = await asyncio.to_thread(run_apart, "doctor", "--json", "--replicas", "3", url=servers.url)
        found = {record["topic"]: record for record in told.records}
        assert told.code == 1
        assert found["promotion"]["level"] == found["replicas"]["level"] == "problem"
        assert "replica-priority 0 on all 2 replicas" in found["promotion"]["text"]


class TestScheme:
    """A URL whose scheme is not what the port speaks."""

    @pytest.mark.parametrize("secured", [True, False])
    async def test_scheme(self, own_server: Callable[..., EmbeddedServer], *, secured: bool) -> None:
        """It says which scheme the port needs, also if the server asks for a password."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        config = {"requirepass": "secret"}
        async with own_server(config=config) as server, Proxy(server.url, tls=context if secured else None) as proxy:
            address = proxy.url.partition("://")[2].rpartition("@")[2]
            url = f"{'redis' if secured else 'rediss'}://{address}"
            told = await asyncio.to_thread(run_apart, "doctor", "--url", url)
        assert told.code == 2
        expected = "speaks TLS: use rediss://." if secured else "speaks plain text, without TLS: use redis://"
        assert expected in told.complaint

    @pytest.mark.parametrize("scheme", ["redis", "rediss"])
    def test_nothing_there(self, scheme: str) -> None:
        """Where nothing listens, it says nothing about TLS."""
        told = run("doctor", "--url", f"{scheme}://127.0.0.1:{free_port()}")
        assert told.code == 2
        assert told.complaint.endswith("'jwt-events serve' starts one.")
