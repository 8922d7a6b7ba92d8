"""Traces: one tree from a request through enqueue and wait to each attempt, with its SQL and outgoing requests.

Uses OpenTelemetry, which is loaded only where the environment names an endpoint, see :mod:`switchyard.wiring`. Its own
variables set the rest, such as ``OTEL_TRACES_SAMPLER``.
"""

import os
import re
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from threading import Lock
from typing import Any, Final

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from switchyard.middleware.envelope import ready_since
from switchyard.middleware.outcomes import attempt, outcome_of

# Of those that are installed. Not the broker's client: it would make several spans for each message.
INSTRUMENTED: Final = frozenset({"django", "sqlite3", "psycopg", "psycopg2", "requests", "httpx", "urllib3"})
EXCLUDED_VARIABLE: Final = "OTEL_PYTHON_DJANGO_EXCLUDED_URLS"
POLLED: Final = "healthz,readyz,metrics"
# A worker that drains waits no longer for an endpoint that is away, unless the environment says so.
EXPORT_S: Final = 2.0

W3C: Final = TraceContextTextMapPropagator()
OF_W3C: Final = ("traceparent", "tracestate")
# Current in an attempt that is not traced: what it calls begins no trace of its own.
UNTRACED: Final = trace.set_span_in_context(
    trace.NonRecordingSpan(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(0))), Context()
)
ADDRESSES: Final = frozenset({"http.url", "http.target", "url.full", "url.query"})
STATEMENTS: Final = frozenset({"db.statement", "db.query.text"})
LITERAL: Final = re.compile(r"'(?:[^']|'')*'")


class Tracing(Middleware):
    """Middleware that makes spans: of a send, of the wait before each attempt, of the attempt, of a batch being made.

    The send's context is in the option ``traceparent`` of its message (W3C Trace Context), when the trace is sampled.
    Wait and attempt are its children, each attempt has a link to the one before, and what a job sends is a child of
    its attempt. Listed after the middleware that may stop a message, and before those that log and follow its end.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Make the span of a send. A retry keeps its trace, and gets the id of the attempt that it follows."""
        options, current = message.options, trace.get_current_span().get_span_context()
        if "enqueued_at" in options:
            if current.trace_flags.sampled and f"{current.trace_id:032x}" in str(options.get("traceparent", "")):
                options["previous_span"] = f"{current.span_id:016x}"
            return
        if current.is_valid and not current.trace_flags.sampled:
            return
        # The callback of a batch has the context of its maker.
        parent = None if current.is_valid else context_in(options)
        span = self._start("enqueue", message, SpanKind.PRODUCER, parent)
        if span.is_recording():
            W3C.inject(options, trace.set_span_in_context(span))
        span.end()

    def before_make_batch(self, broker: Broker, batch: Any) -> None:
        """Make a span that is the parent of the members, and of the callbacks, which another process sends."""
        span = self._tracer.start_span("make batch", attributes={"switchyard.batch": batch.id})
        batch.traced = span, attach(trace.set_span_in_context(span))
        for callback in batch.callbacks.values() if span.is_recording() else ():
            W3C.inject(callback.options)

    def after_make_batch(self, broker: Broker, batch: Any) -> None:
        span, token = batch.traced
        span.end()
        detach(token)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Make the spans of the wait, which ends, and of the attempt."""
        parent = context_in(message.options)
        if parent is None:
            message.traced = None, attach(UNTRACED)  # type: ignore[attr-defined]
            return
        now_ns = time.time_ns()
        ready_ns = min(ready_since(message) * 1_000_000, now_ns)
        self._start("wait", message, SpanKind.INTERNAL, parent, start_time=ready_ns).end(now_ns)
        span = self._start("run", message, SpanKind.CONSUMER, parent, start_time=now_ns, links=_before(message))
        message.traced = span, attach(trace.set_span_in_context(span, Context()))  # type: ignore[attr-defined]

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if (traced := getattr(message, "traced", None)) is None:
            return
        span, token = traced
        message.traced = None  # type: ignore[attr-defined]
        if span is not None:
            outcome = outcome_of(message, exception)
            span.set_attributes({"switchyard.outcome": outcome.kind, "switchyard.reason": outcome.reason})
            if exception is not None:
                span.set_attribute("error.type", type(exception).__name__)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        detach(token)

    after_skip_message = after_process_message

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Export what is left: a pool's child ends without the interpreter's own clean-up."""
        if isinstance(provider := trace.get_tracer_provider(), TracerProvider):
            provider.force_flush(int(EXPORT_S * 1000))

    def _start(self, step: str, message: Any, kind: SpanKind, parent: Context | None, **how: Any) -> Span:
        facts = {
            "messaging.system": "switchyard",
            "messaging.destination.name": message.queue_name,
            "messaging.message.id": message.message_id,
            "switchyard.actor": message.actor_name,
        }
        if kind is not SpanKind.PRODUCER:
            facts["switchyard.attempt"] = attempt(message)
        return self._tracer.start_span(f"{step} {message.actor_name}", parent, kind, facts, **how)


def context_in(options: Mapping[str, Any]) -> Context | None:
    """Return the sampled context in a message's options; ``None`` without one, and where it is malformed."""
    carried = {name: value for name in OF_W3C if isinstance(value := options.get(name), str)}
    if not carried:
        return None
    found = W3C.extract(carried, Context())
    return found if trace.get_current_span(found).get_span_context().trace_flags.sampled else None


def _before(message: MessageProxy) -> list[Link]:
    """Return the link to the attempt before."""
    trace_id = str(message.options["traceparent"])[3:35]
    previous = context_in({"traceparent": f"00-{trace_id}-{message.options.get('previous_span')}-01"})
    return [] if previous is None else [Link(trace.get_current_span(previous).get_span_context())]


def start(release: str) -> Tracing:
    """Return the middleware. Unless the project has set a provider of spans, make one and instrument what is called."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        own = {"service.name": "switchyard", "service.version": release}
        provider = TracerProvider(resource=Resource.create({**own, **OTELResourceDetector().detect().attributes}))
        provider.add_span_processor(Export())
        trace.set_tracer_provider(provider)
        os.environ.setdefault(EXCLUDED_VARIABLE, POLLED)
        for found in entry_points(group="opentelemetry_instrumentor"):
            # Each is named for the package that it imports, which may be missing: psycopg, in a project on SQLite.
            if found.name in INSTRUMENTED and find_spec(found.name) is not None:
                found.load()().instrument()
    return Tracing(trace.get_tracer("switchyard"))


class Export(SpanProcessor):
    """Export of spans without what may be secret, in batches of OpenTelemetry's own processor.

    That is made by a process's first span: its thread would not survive a supervisor's forks. Calls outside of any
    trace, such as a pool's first connection, are no traces of their own.
    """

    def __init__(self) -> None:
        self._batches: BatchSpanProcessor | None = None
        self._lock = Lock()

    def on_end(self, span: ReadableSpan) -> None:
        if span.parent is None and span.kind is SpanKind.CLIENT:
            return
        with self._lock:
            if self._batches is None:
                is_set = any(name.endswith("_TIMEOUT") for name in os.environ if name.startswith("OTEL_EXPORTER_OTLP_"))
                self._batches = BatchSpanProcessor(OTLPSpanExporter(timeout=None if is_set else EXPORT_S))
        self._batches.on_end(without_secrets(span))

    def shutdown(self) -> None:
        if self._batches is not None:
            self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches is None or self._batches.force_flush(timeout_millis)


def without_secrets(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of a span without query strings, literals of SQL, and texts of exceptions."""
    facts = {name: _public(name, value) for name, value in (span.attributes or {}).items()}
    events = [Event(event.name, _of_event(event), event.timestamp) for event in span.events]
    return ReadableSpan(
        span.name, span.get_span_context(), span.parent, span.resource, facts, events, span.links, span.kind,
        instrumentation_scope=span.instrumentation_scope, status=Status(span.status.status_code),
        start_time=span.start_time, end_time=span.end_time,
    )  # fmt: skip


def _public(name: str, value: Any) -> Any:
    if name in ADDRESSES and isinstance(value, str):
        return "" if name == "url.query" else value.partition("?")[0]
    return LITERAL.sub("?", value) if name in STATEMENTS and isinstance(value, str) else value


def _of_event(event: Event) -> dict[str, Any]:
    return {name: value for name, value in (event.attributes or {}).items() if name == "exception.type"}
