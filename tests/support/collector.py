"""A collector of traces, as Jaeger is one: takes OTLP over gRPC, so that a test can read what crossed the wire."""

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
class Told:
    """A span, as somebody else learns of it.

    Attributes:
        service: the name of the program that it is from.
        scope: the library that made it.
        schema: the conventions that it follows.
        name: its name.
        kind: its kind, without the prefix: ``PRODUCER``.
        ids: of its trace and its own.
        parent: the id of its parent; empty for a root.
        links: the ids of what it is linked to.
        attributes: its attributes.
        events: the names of its events.
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
    """A collector on a free port of this machine; a context manager.

    Args:
        answers: whether to answer; otherwise those who export wait until they are.

    Attributes:
        endpoint: where to send spans.
        spans: what was received.
        asked: set when the first export arrives, answered or not.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self.spans: list[Told] = []
        self.asked = threading.Event()
        self._may_answer = threading.Event()
        if answers:
            self._may_answer.set()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # it is generated
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answer()
        self._server.stop(grace=None).wait()

    def answer(self) -> None:
        """Answer those who wait, and from now on everybody at once."""
        self._may_answer.set()

    def Export(  # noqa: N802 - the name of the method in the protocol
        self, request: ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take spans; see the protocol."""
        self.asked.set()
        self._may_answer.wait()
        self.spans += _read(request)
        return ExportTraceServiceResponse()

    def of(self, service: str, name: str) -> list[Told]:
        """Return the spans of this program with this name."""
        return [span for span in self.spans if (span.service, span.name) == (service, name)]


def _read(request: ExportTraceServiceRequest) -> Iterable[Told]:
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Told(
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
