"""Spans of jobs: what is not sampled, what a stranger has written, what may be secret."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from dramatiq.broker import MessageProxy
from dramatiq.message import Message
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from switchyard import wiring
from switchyard.middleware.tracing import Tracing, without_secrets
from switchyard.setting_values import InvalidSetting

BROKER: Any = None
TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# The client of Redis loads the part for metrics where it is installed.
OURS = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.instrumentation")
IMPORTED = f"import sys; print(*(name for name in sys.modules if name.startswith({OURS})))"


class Made:
    """A middleware, and the spans that it has made."""

    def __init__(self, sampler: Sampler) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider.get_tracer("test"))

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


@pytest.fixture
def made() -> Made:
    return Made(ALWAYS_ON)


def message(**options: Any) -> Message[Any]:
    return Message("work", "mail", (), {}, options)


def test_a_send_that_is_not_sampled_writes_nothing_and_its_attempt_begins_no_trace() -> None:
    made, sent = Made(ALWAYS_OFF), message()

    made.tracing.before_enqueue(BROKER, sent, None)
    held = MessageProxy(sent)
    made.tracing.before_process_message(BROKER, held)
    within = trace.get_current_span().get_span_context()
    made.tracing.after_process_message(BROKER, held, result=None)

    assert sent.options == {} and made.names == []
    assert within.is_valid and not within.trace_flags.sampled
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("written", [7, None, ["00"], "", "00-zz-1-01", TRACED[:-2] + "00", "x" * 10_000])
def test_a_context_that_cannot_be_read_is_none(made: Made, written: Any) -> None:
    held = MessageProxy(message(traceparent=written, tracestate=written, previous_span=written))

    made.tracing.before_process_message(BROKER, held)
    made.tracing.after_skip_message(BROKER, held)

    assert made.names == []


def test_a_foreign_senders_context_is_the_parent_and_a_forged_link_is_none(made: Made) -> None:
    held = MessageProxy(message(traceparent=TRACED, previous_span={"forged": True}))

    made.tracing.before_process_message(BROKER, held)
    span = trace.get_current_span()
    made.tracing.after_process_message(BROKER, held, exception=RuntimeError("a secret"))

    assert made.names == ["wait mail", "run mail"]
    assert isinstance(span, ReadableSpan) and span.parent is not None
    assert f"{span.parent.span_id:016x}" == TRACED[36:52] and not span.links
    assert span.attributes is not None and span.attributes["error.type"] == "RuntimeError"
    assert "secret" not in span.to_json()


def test_an_exported_span_has_no_query_no_literal_and_no_text_of_an_exception(made: Made) -> None:
    facts = {
        "http.url": "https://example.com/path?key=secret",
        "url.query": "key=secret",
        "db.statement": "UPDATE t SET a = 'it''s secret' WHERE b = %s",
    }
    with (
        pytest.raises(RuntimeError),
        made.provider.get_tracer("test").start_as_current_span("GET", attributes=facts) as span,
    ):
        raise RuntimeError("secret")

    assert isinstance(span, ReadableSpan)
    exported = without_secrets(span).to_json()

    assert "secret" in span.to_json() and "secret" not in exported
    assert "https://example.com/path" in exported and "UPDATE t SET a = ? WHERE b = %s" in exported
    assert "RuntimeError" in exported


@pytest.mark.parametrize("given", [{}, {"SWITCHYARD_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_imported_without_an_endpoint(given: dict[str, str]) -> None:
    code = f"import django; django.setup(); {IMPORTED}"
    environment = {**os.environ, **given, "DJANGO_SETTINGS_MODULE": "project.settings"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_an_endpoint_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(wiring, "TRACES", ("opentelemetry.absent", *wiring.TRACES[1:]))

    with pytest.raises(InvalidSetting, match=r"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: .* extra traces"):
        wiring.traces("test")


def test_a_package_that_a_project_does_not_have_is_not_instrumented() -> None:
    absent = "import sys; sys.modules['psycopg'] = None"
    code = f"{absent}; from switchyard.middleware import tracing; tracing.start('test')"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)

    assert done.returncode == 0, done.stderr
