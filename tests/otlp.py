"""Receiver of traces: OTLP over HTTP in protobuf, on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.factories.endpoints import Answering, answers_of


@dataclass(frozen=True)
class Received:
    """A span as it arrived. Ids are hexadecimal, times nanoseconds since the epoch."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    status: int
    resource: dict[str, Any]


@dataclass
class Traces:
    """Spans that were received, and the bytes of all requests."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: bytes = b""

    def tree_of(self, job_id: str) -> list[Received]:
        """Return the spans of the trace to which a job belongs, as they began; none before one arrived."""
        traces = {span.trace for span in self.spans if span.attributes.get("messaging.message.id") == job_id}
        assert len(traces) < 2, f"{job_id} is in {len(traces)} traces"
        return sorted((span for span in self.spans if span.trace in traces), key=lambda span: span.start)


def roots_of(tree: list[Received]) -> list[str]:
    """Return the names of spans of which no parent arrived."""
    ids = {span.id for span in tree}
    return [span.name for span in tree if span.parent not in ids]


@contextmanager
def receiving() -> Iterator[Traces]:
    found, lock = Traces(), threading.Lock()

    class Handler(Answering):
        def do_POST(self) -> None:
            body = self.body()
            with lock:
                found.raw += body
                found.spans += spans_in(body)
            self.answer(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    with answers_of(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def spans_in(body: bytes) -> list[Received]:
    return [
        Received(
            trace=span.trace_id.hex(), id=span.span_id.hex(), parent=span.parent_span_id.hex(), name=span.name,
            kind=span.kind, start=span.start_time_unix_nano, end=span.end_time_unix_nano,
            attributes=_plain(span.attributes), links=tuple(link.span_id.hex() for link in span.links),
            status=span.status.code, resource=_plain(of_resource.resource.attributes),
        )
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]  # fmt: skip


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
