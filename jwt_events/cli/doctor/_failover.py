"""Findings about failovers: what the Sentinels agree on, and what an old primary still accepts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jwt_events.cli.doctor._facts import Facts
from jwt_events.cli.doctor._finding import Finding, Level


def sentinels(facts: Facts) -> Iterator[Finding]:
    """Judge what the Sentinels say; nothing without any."""
    survey = facts.survey
    if survey is None:
        return
    told = [reply for reply in survey.replies.values() if reply is not None and reply.address is not None]
    if (primary := survey.primary) is None:
        seen = f"{survey.supporting(None)} of {survey.size} name one primary ({survey.problems})"
        advice = "No list is ever fresh: list them all, and start those that are missing."
        yield Finding("sentinels", Level.PROBLEM, seen, advice)
        return
    down_after = max(reply.down_after for reply in told)
    seen = f"{survey.supporting(primary)} of {survey.size} name {primary[0]}:{primary[1]}"
    seen += f"; quorum {survey.quorum}, down after {down_after:g} s"
    if survey.problems:
        yield Finding("sentinels", Level.WARNING, f"{seen}; {survey.problems}", "One more, and lists turn stale.")
    elif survey.opposing(primary):
        advice = "They disagree, or call it down: look at SENTINEL MASTER on each, and at the network between them."
        yield Finding("sentinels", Level.WARNING, seen, advice)
    elif survey.size < 3 or survey.quorum < 2:
        advice = "One Sentinel alone may replace a primary that it cannot reach: use three, and a quorum of two."
        yield Finding("sentinels", Level.WARNING, seen, advice)
    elif down_after > facts.max_staleness:
        advice = (
            f"Lists refuse every token for at least {down_after - facts.max_staleness:g} s after a crash: lower it."
        )
        yield Finding("sentinels", Level.NOTE, seen, advice)
    else:
        yield Finding("sentinels", Level.OK, seen)


def promotion(facts: Facts) -> Iterator[Finding]:
    """Judge which replica the Sentinels would promote; nothing without Sentinels."""
    if facts.survey is None or facts.survey.primary is None:
        return
    if facts.priorities is None:
        advice = "Grant +sentinel|replicas at the Sentinels to know."
        yield Finding("promotion", Level.UNKNOWN, "the priorities of the replicas are not known", advice)
        return
    count, able = len(facts.priorities), [priority for priority in facts.priorities if priority > 0]
    if not able:
        seen = f"replica-priority 0 on all {count} replicas" if count else "there are no replicas"
        advice = "No server is promoted: after a crash lists refuse every token until the primary is back."
        yield Finding("promotion", Level.PROBLEM, seen, f"{advice} Give replicas one priority, such as 100.")
    elif len(able) < count:
        seen = f"replica-priority 0 on {count - len(able)} of {count} replicas"
        advice = "What only those have is lost in a failover, although it counts for replicas=1: give all one priority."
        yield Finding("promotion", Level.WARNING, seen, advice)
    elif len(set(able)) > 1:
        seen = f"replica-priority from {min(able)} to {max(able)}"
        advice = "One that has less may be promoted before one that has more: give all the same."
        yield Finding("promotion", Level.WARNING, seen, advice)
    else:
        yield Finding("promotion", Level.OK, f"each of {count} replicas may be promoted")


def old_primary(facts: Facts) -> Iterator[Finding]:
    """Judge whether a primary that was cut off, and replaced, goes on accepting events, which are lost."""
    needed, lag = facts.settings.get("min-replicas-to-write"), facts.settings.get("min-replicas-max-lag")
    if facts.info.get("connected_slaves", "0") == "0" or needed is None or lag is None:
        return
    is_off = needed == "0" or lag == "0"
    if is_off and facts.replicas:
        yield Finding("old primary", Level.OK, f"it confirms nothing without {facts.replicas} of its replicas")
    elif is_off:
        advice = "Cut off and replaced, it accepts events that are lost: set it to 1, or publish with replicas=1."
        yield Finding("old primary", Level.NOTE, "min-replicas-to-write 0", advice)
    elif float(lag) > facts.max_staleness and not facts.replicas:
        advice = (
            f"Cut off, it accepts events for {lag} s that may be lost: lower it to {facts.max_staleness:g} or less."
        )
        yield Finding("old primary", Level.NOTE, f"min-replicas-max-lag {lag}", advice)
    elif int(needed) > int(facts.info["connected_slaves"]):
        advice = "Nothing can be published: add replicas, or lower it."
        yield Finding("old primary", Level.PROBLEM, f"min-replicas-to-write {needed}", advice)
    else:
        yield Finding("old primary", Level.OK, f"it accepts nothing {lag} s after it is cut off")
