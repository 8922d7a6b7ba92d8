"""Logs, spans and metrics of jobs: what a stranger has written, what may be secret, what is bounded."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client import CollectorRegistry, Counter, Histogram

from switchyard import wiring
from switchyard.middleware import logs, metrics
from switchyard.middleware.metrics import BUCKETS_S, OWNER_ATTEMPTS, OWNER_SECONDS, Children, Metrics, observe
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.middleware.redaction import without_secrets
from switchyard.middleware.tracing import Tracing
from switchyard.middleware.tracing import without_secrets as span_without_secrets
from switchyard.setting_values import InvalidSetting
from tests.waiting import wait_for

NASTY = "actor\x1b[2J\nforged line\r\u202e"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


@pytest.fixture
def middleware() -> Any:
    return logs.Logs()


def _message() -> MessageProxy:
    return MessageProxy(Message("work", "mail", (), {}, {"attempts": 2}))


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_control_characters_are_shown_in_a_terminals_log(capsys):
    logs.configure("console")

    logging.getLogger("other").warning("got %s", NASTY)
    structlog.stdlib.get_logger("ours").info("started", actor=NASTY)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("forged line" in line for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_that_cannot_be_shown_is_logged(log_format, capsys):
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not to be shown")

        __repr__ = __str__

    logs.configure(log_format)

    structlog.stdlib.get_logger("ours").error("dead", exc_info=Unshowable())

    assert "dead" in capsys.readouterr().err


def test_a_parked_message_is_not_said_to_be_given_up(capsys):
    stub_broker = StubBroker()
    logs.configure("json")
    worker = Worker(stub_broker, worker_timeout=10)
    stub_broker.declare_queue("work")

    worker.start()
    stub_broker.enqueue(Message("work", "nobody", (), {}, {}))
    wait_for(lambda: stub_broker.dead_letters)
    logging.getLogger("dramatiq.worker.ConsumerThread(work)").error("something else")
    worker.stop()

    told = [line["event"] for line in _lines(capsys) if "ConsumerThread(work)" in line["logger"]]
    assert told == ["something else"]


def test_a_traceback_keeps_its_lines_but_no_control_characters_nor_variables(capsys):
    logs.configure("console")

    password = "hunter2"
    try:
        raise ValueError(f"bad\x1b[2J {len(password)}")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")

    printed = capsys.readouterr().err
    assert "Traceback" in printed and "bad\\x1b[2J 7" in printed
    assert "\x1b[2J" not in printed and "hunter2" not in printed.replace('password = "hunter2"', "")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_long_traceback_keeps_its_beginning_and_its_end(log_format, capsys):
    logs.configure(log_format)

    try:
        raise ValueError("x" * 1_000_000 + " the end")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")

    printed = capsys.readouterr().err
    assert len(printed) < 20_000
    assert "Traceback" in printed and "characters left out" in printed
    assert "the end" in printed


def test_what_is_logged_meanwhile_names_its_job_and_what_the_actor_bound(capsys, middleware):
    logs.configure("json")
    message = _message()

    middleware.before_process_message(None, message)
    structlog.contextvars.bind_contextvars(customer=7)
    structlog.stdlib.get_logger("ours").info("working")
    logging.getLogger("other").info("working")
    middleware.after_process_message(None, message)
    structlog.stdlib.get_logger("ours").info("idle")

    *during, ended, idle = _lines(capsys)
    names = {"job_id": message.message_id, "actor": "mail", "queue": "work", "attempt": 3}
    assert [{**line, **names, "customer": 7} for line in (*during, ended)] == [*during, ended]
    assert [line["event"] for line in (*during, ended)] == ["working", "working", "succeeded"]
    assert not {*names, "customer"} & {*idle}


def test_a_job_whose_end_was_interrupted_lends_its_names_to_nobody(capsys, middleware):
    logs.configure("json")
    second = _message()

    middleware.before_process_message(None, _message())
    structlog.contextvars.bind_contextvars(customer=7)
    middleware.before_process_message(None, second)
    middleware.after_process_message(None, second)

    (line,) = _lines(capsys)
    assert line["job_id"] == second.message_id
    assert "customer" not in line


@pytest.mark.parametrize(
    ("outcome", "events"),
    [
        (Outcome("succeeded"), []),
        (Outcome("cancelled"), []),
        (Outcome("retried", delay_ms=5, exception=ValueError("no")), ["retried"]),
        (Outcome("dead", "exhausted", exception=ValueError("no")), ["dead"]),
    ],
)
def test_at_warning_only_failures_are_logged_and_nothing_is_made_of_the_rest(
    outcome, events, capsys, middleware, monkeypatch
):
    logs.configure("json", level=logging.WARNING)
    made: list[str] = []
    names_of: Any = logs._names
    monkeypatch.setattr(logs, "_names", lambda message: made.append(message.message_id) or names_of(message))
    message = _message()

    middleware.before_process_message(None, message)
    decide(message, outcome)
    middleware.after_process_message(None, message)

    assert [line["event"] for line in _lines(capsys)] == events
    assert bool(made) == bool(events)


@pytest.mark.parametrize(("attempts", "development", "shown"), [(0, True, True), (1, True, False), (0, False, False)])
def test_the_first_failure_shows_its_traceback_in_development_only(attempts, development, shown, capsys):
    logs.configure("console")
    entry = logs.Logs(tracebacks=development)
    message = MessageProxy(Message("work", "mail", (), {}, {"attempts": attempts}))
    try:
        raise KeyError("missing")
    except KeyError as error:
        failure = error
    decide(message, Outcome("retried", delay_ms=5, exception=failure))

    entry.before_process_message(StubBroker(), message)
    entry.after_process_message(StubBroker(), message, exception=failure)

    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if "retried" in line]
    assert "raised=KeyError" in line
    assert ("Traceback (most recent call last)" in said, "test_logs.py" in said) == (shown, shown)


def test_a_refused_request_is_logged_in_one_line_and_a_failed_one_with_its_traceback(capsys):
    logs.configure("console")
    try:
        raise PermissionError("not yours")
    except PermissionError:
        logging.getLogger("django.request").warning("Forbidden (Permission denied): %s", "/x", exc_info=True)
        logging.getLogger("django.security.DisallowedHost").error("Invalid HTTP_HOST header", exc_info=True)
        refused = capsys.readouterr().err.splitlines()
        logging.getLogger("django.request").error("Internal Server Error: %s", "/x", exc_info=True)
        failed = capsys.readouterr().err.splitlines()

    assert len(refused) == 2
    assert any("PermissionError" in line for line in failed)


CANARY = "c4n4ry"


@pytest.mark.parametrize(
    "line",
    [
        f"password={CANARY}",
        f"{{'api_key': '{CANARY}', 'n': 1}}",
        f'{{"access_token": "{CANARY} more", "n": 1}}',
        f"Authorization: Bearer {CANARY}",
        f"sent Basic {CANARY}",
        f"redis://user:{CANARY}@host:6379/0",
        f"GET https://example.com/a?sig={CANARY}&x=1",
        f"client_secret : {CANARY}",
        f"Set-Cookie: {CANARY}",
        f"redis://user:p@{CANARY}@host:6379/0",
        f"Authorization: Token {CANARY}",
        f'{{"password": "a \\"quoted {CANARY}\\" word"}}',
        f'{{"event": "password=\\"two {CANARY}\\" words"}}',
        f'{{"event": "{{\\"password\\": \\"two {CANARY}\\"}}"}}',
        f"{{'tokens': ['one', '{CANARY}']}}",
        f"error: password={CANARY}",
        f"https://a.example/b https://c.example/x://y?sig={CANARY}",
    ],
)
def test_a_secret_is_hidden(line):
    assert CANARY not in without_secrets(f"before {line}") and "before" in without_secrets(f"before {line}")


@pytest.mark.parametrize("most_s", [3.0, pytest.param(0.5, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "part", ["a", "passw", "token-", "password ", 'token:"', 'token:\\"', "token:[", "bearer ", "a://", "a:@", '"']
)
def test_no_line_takes_long(part, most_s):
    line = (part * 4_096)[:4_096]
    started_s = time.process_time()
    without_secrets(line)
    assert time.process_time() - started_s < most_s


@pytest.mark.parametrize("part", ["x://@", "x://", "x://y?", "://", "a://b@c?d ", "passw", 'token:"'])
def test_a_line_of_four_times_the_length_takes_no_sixteen_times_the_work(part):
    def least_s(length: int) -> float:
        line, taken = (part * length)[:length], []
        for _ in range(5):
            began_s = time.process_time()
            without_secrets(line)
            taken.append(time.process_time() - began_s)
        return min(taken)

    assert least_s(16_384) < 9 * least_s(4_096) + 0.002


@pytest.mark.parametrize(
    "line",
    [
        *("order 17 of 3 items", "https://example.com/a", "https://example.com/? x", "x://y x://z"),
        *("at 12:30: 4 sent", '{"n": 1}'),
    ],
)
def test_the_rest_stays(line):
    assert without_secrets(line) == line


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


def test_a_send_that_is_not_sampled_writes_nothing_and_its_attempt_begins_no_trace():
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
def test_a_context_that_cannot_be_read_is_none(made, written):
    held = MessageProxy(message(traceparent=written, tracestate=written, previous_span=written))

    made.tracing.before_process_message(BROKER, held)
    made.tracing.after_skip_message(BROKER, held)

    assert made.names == []


def test_a_foreign_senders_context_is_the_parent_and_a_forged_link_is_none(made):
    held = MessageProxy(message(traceparent=TRACED, previous_span={"forged": True}))

    made.tracing.before_process_message(BROKER, held)
    span = trace.get_current_span()
    made.tracing.after_process_message(BROKER, held, exception=RuntimeError("a secret"))

    assert made.names == ["wait mail", "run mail"]
    assert isinstance(span, ReadableSpan) and span.parent is not None
    assert f"{span.parent.span_id:016x}" == TRACED[36:52] and not span.links
    assert span.attributes is not None and span.attributes["error.type"] == "RuntimeError"
    assert "secret" not in span.to_json()


def test_an_exported_span_has_no_query_no_literal_and_no_text_of_an_exception(made):
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
    exported = span_without_secrets(span).to_json()

    assert "secret" in span.to_json() and "secret" not in exported
    assert "https://example.com/path" in exported and "UPDATE t SET a = ? WHERE b = %s" in exported
    assert "RuntimeError" in exported


@pytest.mark.parametrize("given", [{}, {"SWITCHYARD_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}])
def test_nothing_is_imported_without_an_endpoint(given):
    code = f"import django; django.setup(); {IMPORTED}"
    environment = {**os.environ, **given, "DJANGO_SETTINGS_MODULE": "project.settings"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_an_endpoint_without_the_package_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(wiring, "TRACES", ("opentelemetry.absent", *wiring.TRACES[1:]))

    with pytest.raises(InvalidSetting, match=r"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: .* extra traces"):
        wiring.traces("test")


def test_a_package_that_a_project_does_not_have_is_not_instrumented():
    absent = "import sys; sys.modules['psycopg'] = None"
    code = f"{absent}; from switchyard.middleware import tracing; tracing.start('test')"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)

    assert done.returncode == 0, done.stderr


FORKED = """
import os
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.multiprocess import MultiProcessCollector
from switchyard.middleware.metrics import Children

children = Children(Counter("runs", "Runs.", ("actor",), registry=CollectorRegistry()))
children["mail",].inc()
if os.fork() == 0:
    children["mail",].inc(2)
    os._exit(0)
os.wait()
children["mail",].inc(4)
collected = CollectorRegistry()
MultiProcessCollector(collected)
print(collected.get_sample_value("runs_total", {"actor": "mail"}))
"""


def test_a_child_is_the_one_that_labels_name():
    metric = Counter("runs", "Runs.", ("queue", "actor"), registry=CollectorRegistry())
    children = Children(metric)

    children["bulk", "mail"].inc()
    children["bulk", "mail"].inc()

    assert children["bulk", "mail"] is metric.labels("bulk", "mail")
    assert children["bulk", "report"] is not children["bulk", "mail"]


def test_a_forked_process_counts_in_a_file_of_its_own(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert (done.stdout.strip(), len(list(tmp_path.glob("counter_*.db")))) == ("7.0", 2)


def test_observations_that_are_added_together_come_out_as_if_each_had_been_observed():
    registry = CollectorRegistry()
    one_by_one, together = (
        Histogram(name, "Waits.", ("actor",), buckets=BUCKETS_S, registry=registry) for name in ("single", "folded")
    )
    values = (0.0, *BUCKETS_S, *(bound * 1.01 for bound in BUCKETS_S), 1e6)

    for actor in ("mail", "report"):
        for value in values:
            one_by_one.labels(actor).observe(value)
    observe(Children(together), {("mail",): values, ("report",): values})

    named = [
        {(each.name.partition("_")[2], *each.labels.values()): each.value for each in family.samples}
        for family in registry.collect()
    ]
    single, folded = ({name: value for name, value in each.items() if name[0] != "created"} for each in named)
    assert folded == pytest.approx(single)
    assert len(folded) == 2 * (len(BUCKETS_S) + 3)


def test_the_product_of_all_labels_is_bounded_and_what_is_over_it_counts_as_other(monkeypatch):
    monkeypatch.setattr(metrics, "MOST_ACTORS", 20)
    monkeypatch.setattr(metrics, "MOST_EXCEPTIONS", 30)
    middleware, broker = Metrics(), StubBroker(middleware=[])
    lanes, actors, exceptions = ("bulk", "bulk-retry", "mail"), 15, 10
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(exceptions)]

    for lane in lanes:
        for actor in range(actors):
            for kind in kinds:
                message = MessageProxy(Message(lane, f"actor{actor}", (), {}, {}))
                middleware.before_process_message(broker, message)
                decide(message, Outcome("retried", exception=kind()))
                middleware.after_process_message(broker, message, exception=kind())

    [family] = [each for each in middleware.registry.collect() if each.name == "switchyard_retries"]
    series = [sample for sample in family.samples if sample.name == "switchyard_retries_total"]
    assert len({(sample.labels["queue"], sample.labels["actor"]) for sample in series}) <= 20 + len(lanes)
    assert len(series) <= 30 + 20 + len(lanes)
    assert sum(sample.value for sample in series) == len(lanes) * actors * exceptions


def test_attempts_and_run_time_are_counted_by_owner_whatever_its_text_is():
    middleware, broker = Metrics(), StubBroker(middleware=[])
    for owner in ("user:7", "user:7", "bad\x00\ud800", "", None):
        message = MessageProxy(Message("mail", "send", (), {}, {} if owner is None else {"owner": owner}))
        middleware.before_process_message(broker, message)
        middleware.after_process_message(broker, message)

    samples = [sample for family in middleware.registry.collect() for sample in family.samples]
    owners = {each.labels["owner"]: each.value for each in samples if each.name == f"{OWNER_ATTEMPTS}_total"}
    assert owners == {"user:7": 2, "bad\\x00\\ud800": 1}
    assert {each.labels["owner"] for each in samples if each.name == f"{OWNER_SECONDS}_total"} == owners.keys()
