"""Parses and formats W3C Trace Context, which travels with an event. Pure.

The wire is untrusted. A malformed or oversized header is ignored; no part of it is logged or passed on.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

# A later version may append fields to these four; version ff is invalid.
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"[ \t]*([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])[ \t]*",
    re.ASCII,
)
_FLAGS = TraceFlags.SAMPLED | 0x02  # the second means that the id is random; no other flags are defined

# The minimum that every implementation must propagate, so a sender cannot rely on more.
_MAX_LENGTH = 512
_MAX_MEMBERS = 32


def parse(traceparent: str | None, tracestate: str | None) -> SpanContext | None:
    """Parse the trace context of a publish; ``None`` if it is missing or invalid."""
    if traceparent is None or len(traceparent) > _MAX_LENGTH or (found := _PARENT.fullmatch(traceparent)) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "00" and more:
        return None
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & _FLAGS),
        trace_state=_state(tracestate),
    )
    return context if context.is_valid else None


def is_sampled(traceparent: str | None) -> bool:
    """Return whether the trace of a publish is sampled."""
    context = parse(traceparent, None)
    return context is not None and context.trace_flags.sampled


def _state(tracestate: str | None) -> TraceState:
    # Validated here, because OpenTelemetry logs invalid members.
    if tracestate is None or len(tracestate) > _MAX_LENGTH:
        return TraceState()
    members = [member for member in tracestate.split(",") if member.strip(" \t")]
    found = [_MEMBER.fullmatch(member) for member in members]
    pairs = {match[1]: match[2] for match in found if match is not None}
    if len(pairs) != len(members) or len(pairs) > _MAX_MEMBERS:
        return TraceState()
    return TraceState(list(pairs.items()))


def headers(context: SpanContext) -> tuple[str, str | None]:
    """Format a context as ``traceparent`` and ``tracestate``."""
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    if not context.trace_state:
        return parent, None
    state = context.trace_state.to_header()
    return parent, state if len(state) <= _MAX_LENGTH else None
