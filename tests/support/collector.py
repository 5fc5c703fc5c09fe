"""Collector of traces over OTLP and gRPC, like Jaeger, whose spans a test can read."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Ids = tuple[bytes, bytes]


@dataclass(frozen=True)
class ReceivedSpan:
    """Span as a collector receives it.

    Attributes:
        service: name of the program that created it.
        scope: name of the instrumentation scope.
        schema: URL of the semantic conventions.
        name: its name.
        kind: its kind without the prefix: ``PRODUCER``.
        ids: trace id and span id.
        parent: span id of its parent; empty for a root.
        links: trace ids and span ids of its links.
        attributes: its attributes.
        events: names of its events.
        failed: whether its status is an error.
    """

    service: str
    scope: str
    schema: str
    name: str
    kind: str
    ids: Ids
    parent: bytes
    links: list[Ids]
    attributes: dict[str, Any]
    events: list[str]
    failed: bool


class Collector(TraceServiceServicer):
    """Collector on a free loopback port; a context manager.

    Args:
        replies: whether to reply to exports at once; otherwise they wait for `reply`.

    Attributes:
        endpoint: URL for exporters.
        spans: the received spans.
        requested: set when the first export arrives, before the reply.
    """

    def __init__(self, *, replies: bool = True) -> None:
        self.spans: list[ReceivedSpan] = []
        self.requested = threading.Event()
        self._may_reply = threading.Event()
        if replies:
            self._may_reply.set()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # it is generated
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reply()
        self._server.stop(grace=None).wait()

    def reply(self) -> None:
        """Reply to the waiting exports, and from now on to each at once."""
        self._may_reply.set()

    def Export(  # noqa: N802 - the name of the method in the protocol
        self, request: ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Receive spans; see the protocol."""
        self.requested.set()
        self._may_reply.wait()
        self.spans += _read(request)
        return ExportTraceServiceResponse()

    def of(self, service: str, name: str) -> list[ReceivedSpan]:
        """Return the spans of a program with this name."""
        return [span for span in self.spans if (span.service, span.name) == (service, name)]


def _read(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    service=service,
                    scope=scope.scope.name,
                    schema=scope.schema_url,
                    name=span.name,
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    ids=(span.trace_id, span.span_id),
                    parent=span.parent_span_id,
                    links=[(link.trace_id, link.span_id) for link in span.links],
                    attributes=_values(span.attributes),
                    events=[event.name for event in span.events],
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in attributes}
