"""Findings about a server, each with advice, judged from facts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jwt_events._internal.positions import sort_key
from jwt_events.cli._groups import Group
from jwt_events.cli._output import approximate, counted
from jwt_events.cli.doctor._addresses import addresses
from jwt_events.cli.doctor._cluster import cluster
from jwt_events.cli.doctor._facts import Facts
from jwt_events.cli.doctor._failover import old_primary, promotion, sentinels
from jwt_events.cli.doctor._finding import Finding, Level
from jwt_events.transport.connection import MAX_LAG, Replication
from jwt_events.transport.ledger import LedgerSummary
from jwt_events.transport.stream import StreamInfo

_MIN_VERSION = (6, 2)
_DRYRUN_VERSION = (7, 0)
_MAX_SKEW = 1.0  # seconds
_SLACK = 60.0  # seconds by which entries may outlive the retention
_DEAD_AFTER = 60.0  # seconds of idleness: twice the default claim_after
_MIN_NORMAL_BUFFER = 16 * 2**20  # twice the default batch of the largest events
_MIN_PUBSUB_BUFFER = 2**20
_MANY_ENDLESS = 10_000  # rules without an end: a megabyte on the server, and in each process

_IS_KEY_RIGHT = "Is --key that of the publishers?"


def findings(facts: Facts, *, durable: bool) -> list[Finding]:
    """Judge the facts.

    Args:
        facts: the facts.
        durable: whether to judge persistence, the stream and its groups.
    """
    rules: list[Callable[[Facts], Iterator[Finding]]] = [_version, _role, sentinels, promotion, _cluster, _addresses]
    rules += [old_primary, _persistence] if durable else []
    rules += [_memory, _buffers, _clock, _rights, _tls]
    if durable:
        rules += [_stream, _ledger, _taken_over, _dead_letters, _groups]
    return [finding for rule in rules for finding in rule(facts)]


def _version(facts: Facts) -> Iterator[Finding]:
    redis = facts.info.get("redis_version")
    if redis is None:
        yield _unknown("version", "INFO", "+info")
        return
    valkey = facts.info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {redis}"
    if _number(redis) < _MIN_VERSION:
        yield Finding("version", Level.PROBLEM, name, "Use Redis 6.2 or newer, or Valkey.")
    else:
        yield Finding("version", Level.OK, name)


def _role(facts: Facts) -> Iterator[Finding]:
    role = facts.info.get("role")
    if role is None:
        yield _unknown("replicas", "INFO", "+info")
    elif role != "master":
        yield Finding("replicas", Level.PROBLEM, "this is a replica", "It is refused: use its primary's URL.")
    elif (count := int(facts.info.get("connected_slaves", "0"))) < facts.replicas:
        advice = "Every publish raises NotReplicated, and no list is ever fresh: add replicas, or ask for fewer."
        yield Finding("replicas", Level.PROBLEM, f"{count} connected, replicas={facts.replicas}", advice)
    elif not count:
        yield Finding("replicas", Level.NOTE, "none", "If the machine is lost, so is what it holds.")
    else:
        near = sum(lag <= MAX_LAG for lag in Replication.parse(facts.info).lags)
        seen = f"{count} connected, {near} heard of within {MAX_LAG} s"
        if near < facts.replicas:
            advice = f"Lists are stale while fewer than replicas={facts.replicas} are heard of: look at the network."
            yield Finding("replicas", Level.WARNING, seen, advice)
        elif 0 < facts.replicas < count:
            advice = "A primary that stalls, and comes back during a failover, may confirm events that only the replica"
            advice = f"{advice} has that is not promoted: ask for {count}, or keep one."
            yield Finding("replicas", Level.NOTE, f"{seen}, replicas={facts.replicas}", advice)
        else:
            yield Finding("replicas", Level.OK, seen)


def _cluster(facts: Facts) -> Iterator[Finding]:
    return cluster(facts.cluster, facts.settings, facts.info, max_staleness=facts.max_staleness)


def _addresses(facts: Facts) -> Iterator[Finding]:
    return addresses(facts.announced, has_sentinels=facts.survey is not None)


def _persistence(facts: Facts) -> Iterator[Finding]:
    if "err" in {facts.info.get("aof_last_write_status"), facts.info.get("rdb_last_bgsave_status")}:
        yield Finding("persistence", Level.PROBLEM, "the last write to the disk failed", "Look into the server's log.")
    append = facts.settings.get("appendonly") or {"0": "no", "1": "yes"}.get(facts.info.get("aof_enabled", ""))
    sync, save = facts.settings.get("appendfsync"), facts.settings.get("save")
    if append == "yes" and sync == "always":
        yield Finding("persistence", Level.OK, "every write is on the disk before it is confirmed")
    elif append == "yes":
        seen = f"appendonly yes, appendfsync {sync or 'unknown'}"
        yield Finding("persistence", Level.NOTE, seen, "A crash may lose about two seconds; 'always' loses none.")
    elif append == "no" and save == "":
        if facts.info.get("connected_slaves", "0") == "0":
            level, advice = Level.WARNING, "A restart forgets every revocation: set appendonly yes."
        else:  # they follow it whatever it has
            level, advice = (
                Level.PROBLEM,
                "Restarted before it is replaced, it empties its replicas: set appendonly yes.",
            )
        yield Finding("persistence", level, "nothing is kept on the disk", advice)
    elif append == "no":
        seen = "snapshots only" if save else "no append-only file"
        yield Finding("persistence", Level.WARNING, seen, "A crash forgets revocations: set appendonly yes.")
    else:
        yield _unknown("persistence", "CONFIG GET", "+config|get")


def _memory(facts: Facts) -> Iterator[Finding]:
    policy = facts.settings.get("maxmemory-policy") or facts.info.get("maxmemory_policy")
    limit = facts.settings.get("maxmemory") or facts.info.get("maxmemory")
    if policy is None or limit is None:
        yield _unknown("eviction", "INFO", "+info")
        return
    seen = f"{policy}, maxmemory {limit if limit != '0' else 'not set'}"
    if not policy.startswith("allkeys"):
        yield Finding("eviction", Level.OK, seen)
        return
    level = Level.WARNING if limit == "0" else Level.PROBLEM
    yield Finding("eviction", level, seen, "It can evict the whole stream: set maxmemory-policy noeviction.")


def _buffers(facts: Facts) -> Iterator[Finding]:
    setting = facts.settings.get("client-output-buffer-limit")
    if setting is None:
        yield _unknown("buffers", "CONFIG GET", "+config|get")
        return
    words = setting.split()
    limits = {words[i]: [int(word) for word in words[i + 1 : i + 4]] for i in range(0, len(words) - 3, 4)}
    small = [
        kind
        for kind, minimum in (("normal", _MIN_NORMAL_BUFFER), ("pubsub", _MIN_PUBSUB_BUFFER))
        if any(0 < limit < minimum for limit in limits.get(kind, [0, 0, 0])[:2])
    ]
    seen = "; ".join(f"{kind} {' '.join(map(str, limits[kind]))}" for kind in ("normal", "pubsub") if kind in limits)
    advice = (
        f"Readers that are a little behind are cut off: raise client-output-buffer-limit {small[0]}." if small else ""
    )
    yield Finding("buffers", Level.WARNING if small else Level.OK, seen, advice)


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.skew is None:
        yield _unknown("clock", "TIME", "+time")
        return
    seen = f"the server's is {abs(facts.skew):.2f} s {'ahead of' if facts.skew > 0 else 'behind'} the one here"
    if abs(facts.skew) <= _MAX_SKEW:
        yield Finding("clock", Level.OK, seen)
    else:
        advice = "Revocations by user, session or client compare clocks: synchronise them (NTP), or give a leeway."
        yield Finding("clock", Level.WARNING, seen, advice)


def _rights(facts: Facts) -> Iterator[Finding]:
    suffices = any(missing == [] for missing in facts.lacking.values())
    for role, missing in facts.lacking.items():
        if missing is None and _number(facts.info.get("redis_version", "")) < _DRYRUN_VERSION and facts.info:
            seen = "this server has no way to ask without harm: ACL DRYRUN came with Redis 7"
            yield Finding(f"rights: {role}", Level.UNKNOWN, seen, "A part that lacks a right names it when it opens.")
        elif missing is None:
            yield _unknown(f"rights: {role}", "ACL DRYRUN", "+acl|dryrun +acl|whoami")
        elif not missing:
            yield Finding(f"rights: {role}", Level.OK, "this user may be one")
        else:
            level = Level.NOTE if suffices else Level.WARNING
            advice = "Grant them if it is to be one." if suffices else "Grant them: this user suffices for no role."
            yield Finding(f"rights: {role}", level, f"this user lacks {', '.join(missing)}", advice)


def _tls(facts: Facts) -> Iterator[Finding]:
    if facts.scheme == "rediss":
        yield Finding("tls", Level.OK, "the connection is encrypted")
    elif facts.is_local:
        yield Finding("tls", Level.OK, "not used, and the server is on this machine")
    else:
        advice = "Anybody on the network path can read passwords and identifiers, and revoke: use rediss://."
        yield Finding("tls", Level.WARNING, "the connection is not encrypted", advice)


def _stream(facts: Facts) -> Iterator[Finding]:
    stream, kept = facts.stream, facts.retention.total_seconds()
    if stream is None:
        yield _unknown("stream", "XINFO STREAM", "+xinfo|stream, and the key")
    elif stream == StreamInfo():
        level = Level.NOTE if facts.is_unused else Level.WARNING  # where other programs are, the name may be wrong
        yield Finding("stream", level, f"{facts.key!r} holds nothing, and never did", _IS_KEY_RIGHT)
    elif stream.first is None:
        yield Finding("stream", Level.OK, "it holds nothing")
    elif facts.sample and not any(facts.sample):
        seen = f"{facts.key!r} holds {stream.length} entries, and none of {len(facts.sample)} looked at is an event"
        yield Finding("stream", Level.WARNING, seen, f"Another program writes it. {_IS_KEY_RIGHT}")
    elif facts.clock is None:
        yield Finding("stream", Level.OK, f"it holds {counted(stream.length, 'event')}")
    else:
        oldest = facts.clock - sort_key(stream.first)[0] / 1000
        ages = f"the oldest {approximate(max(0.0, oldest))} old; retention {approximate(kept)}"
        seen = f"it holds {counted(stream.length, 'event')}, {ages}"
        if oldest > kept * 1.1 + _SLACK:
            advice = "No publisher folds and trims it so: compare retention with theirs, and grant what they lack."
            yield Finding("stream", Level.WARNING, seen, advice)
        else:
            yield Finding("stream", Level.OK, seen)


def _ledger(facts: Facts) -> Iterator[Finding]:
    ledger = facts.ledger
    if isinstance(ledger, str):
        advice = "No list opens that reads this ledger, and nothing is trimmed: grant the right, or clear the key."
        yield Finding("ledger", Level.WARNING, f"it cannot be read: {ledger}", advice)
    elif ledger is not None and not ledger.exists:
        removed = facts.stream is not None and bool(facts.stream.removed)
        level, advice = Level.OK, ""
        if removed:
            level = Level.WARNING
            advice = "What was trimmed is forgotten: let publishers fold, or say ledger=False everywhere."
        yield Finding("ledger", level, f"{ledger.key!r} is not there; the first folding makes it", advice)
    elif ledger is not None:
        size = "" if ledger.bytes is None else f", {ledger.bytes / 2**20:.1f} MB"
        seen = f"{counted(ledger.entries, 'rule')}{size}; {ledger.endless} without an end, {ledger.keys} about keys"
        if ledger.lock_is_foreign:
            advice = "A tool or a changed clock left it so: 'jwt-events ledger fold' folds, and releases it."
            yield Finding("ledger", Level.WARNING, f"the lock of {ledger.key!r} is held by no publisher", advice)
        if ledger.lost != 0:
            lost = "unknown" if ledger.lost is None else ledger.lost
            advice = "Find who trims or deletes without folding; lists that start are told a gap."
            yield Finding("ledger", Level.WARNING, f"{seen}; removed before they were folded: {lost}", advice)
        elif ledger.endless > ledger.entries / 2 and ledger.endless > _MANY_ENDLESS:
            yield Finding("ledger", Level.NOTE, seen, "Give events an expires_at: rules without an end stay for ever.")
        else:
            yield Finding("ledger", Level.OK, seen)


def _taken_over(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.ledger, LedgerSummary) and (key := facts.ledger.to_be_taken_over) is not None:
        advice = "It was copied under the name it had on one server, and counts; a publisher that folds takes it over."
        yield Finding("ledger", Level.NOTE, f"{key!r} is to be taken over", advice)


def _dead_letters(facts: Facts) -> Iterator[Finding]:
    if facts.dead_letters is None:
        yield _unknown("dead letters", "XLEN", "+xlen, and the key")
    elif facts.dead_letters:
        advice = "Events were given up: 'jwt-events dead list' tells why, 'replay' tries again, 'purge' removes them."
        yield Finding("dead letters", Level.WARNING, f"{facts.dead_letters}", advice)
    else:
        yield Finding("dead letters", Level.OK, "none")
    if isinstance(facts.left_behind, str):
        problem = f"those under the name that they had on one server cannot be counted: {facts.left_behind}"
        yield Finding("dead letters", Level.WARNING, problem, "Look again when that node can be reached.")
    elif facts.left_behind is not None and facts.left_behind[0]:
        count, key = facts.left_behind
        advice = "They were copied under the name they had on one server: 'jwt-events dead take-over' brings them."
        yield Finding("dead letters", Level.WARNING, f"{count} more lie in {key!r}", advice)


def _groups(facts: Facts) -> Iterator[Finding]:
    if facts.groups is None:
        yield _unknown("groups", "XINFO GROUPS", "+xinfo, and the key")
    for group in facts.groups or ():
        dead = [consumer for consumer in group.idle_for(_DEAD_AFTER) if consumer.pending]
        lag = "unknown" if group.lag is None else group.lag
        seen = f"{group.name!r}: lag {lag}, {group.pending} pending, {counted(len(group.consumers), 'consumer')}"
        if dead:
            held = ", ".join(f"{one.name} ({one.pending} pending, silent for {approximate(one.idle)})" for one in dead)
            advice = "Start a receiver of this group: it takes over what they hold after claim_after."
            yield Finding("groups", Level.WARNING, f"{seen}; dead: {held}", advice)
        elif _is_behind(group, facts.stream) and len(group.idle_for(_DEAD_AFTER)) == len(group.consumers):
            yield Finding(
                "groups", Level.WARNING, f"{seen}; no consumer reads", "Start a receiver, or destroy the group."
            )
        else:
            yield Finding("groups", Level.OK, seen)
    if facts.groups == []:
        yield Finding("groups", Level.OK, "none")


def _is_behind(group: Group, stream: StreamInfo | None) -> bool:
    """Whether there are events that were not delivered to the group; not every server counts them."""
    if group.lag is not None or stream is None or stream.first is None:
        return bool(group.lag)
    return sort_key(group.last_delivered) < sort_key(stream.last)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _unknown(topic: str, command: str, rights: str) -> Finding:
    return Finding(topic, Level.UNKNOWN, f"this user may not ask ({command})", f"To see it, grant {rights}.")
