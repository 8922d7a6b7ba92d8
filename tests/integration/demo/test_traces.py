"""Traces of the whole demo: web, pools of threads and of greenlets, scheduler, with a receiver of OTLP."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from project.config import BASE_DIR
from tests.integration.demo.running import RunningDemo
from tests.otlp import Received, Traces, receiving, roots_of
from tests.waiting import wait_for

SECRET = "not-for-a-trace"
PRODUCER, CONSUMER, CLIENT, ERROR = 4, 5, 3, 2
MAKE_A_BATCH = """
from apps.webhooks.actors import purge_delivery_attempts as purge
from switchyard.batches.services import batch
with batch("purge", on_success=purge.message()) as jobs:
    for _ in range(3):
        jobs.add(purge.message())
print(jobs.id)
"""


@pytest.fixture(scope="module")
def traces() -> Iterator[Traces]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def demo(traces: Traces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        running = RunningDemo(tmp_path_factory.mktemp("demo") / "state", "--no-sample")
        try:
            running.wait_until_ready()
            yield running
        finally:
            running.kill()


def in_shell(demo: RunningDemo, code: str) -> str:
    """Run code as a command of the demo's project, and return what it prints."""
    environment = f"set -a; . {shlex.quote(str(demo.state / 'environment'))}"
    run = f"{environment}; exec {shlex.quote(sys.executable)} manage.py shell -v 0 -c {shlex.quote(code)}"
    return subprocess.run(["bash", "-c", run], cwd=BASE_DIR, capture_output=True, check=True, text=True).stdout.strip()


def named(tree: list[Received], name: str) -> list[Received]:
    return [span for span in tree if span.name == name]


def below(tree: list[Received], parent: Received) -> list[Received]:
    return [span for span in tree if span.parent == parent.id]


def test_a_webhook_with_three_attempts_is_one_tree(demo: RunningDemo, traces: Traces) -> None:
    port = json.loads((demo.state / "identity.json").read_text())["receiver_port"]
    endpoint = {"url": f"http://127.0.0.1:{port}/flaky?key={SECRET}", "events": ["test.flaky"]}
    demo.ask("POST", "/api/v1/webhooks/endpoints", endpoint)
    event = {"event": "test.flaky", "payload": {"note": SECRET}}
    [job_id] = demo.ask("POST", f"/api/v1/webhooks/events?key={SECRET}", event)["job_ids"]

    wait_for(lambda: len(named(traces.tree_of(job_id), "run deliver_webhook")) == 3, what="three attempts")
    wait_for(lambda: len(roots_of(traces.tree_of(job_id))) == 1, what="one root")
    tree = traces.tree_of(job_id)

    [request] = [span for span in tree if not span.parent]
    assert request.resource["service.name"] == "switchyard" and request.resource["service.version"]
    [sent] = named(tree, "enqueue deliver_webhook")
    assert (sent.parent, sent.kind) == (request.id, PRODUCER)
    waits, runs = named(tree, "wait deliver_webhook"), named(tree, "run deliver_webhook")
    assert {span.parent for span in (*waits, *runs)} == {sent.id}
    assert [span.attributes["switchyard.attempt"] for span in runs] == [1, 2, 3]
    assert [span.attributes["switchyard.outcome"] for span in runs] == ["retried", "retried", "succeeded"]
    assert [span.status == ERROR for span in runs] == [True, True, False]
    assert [span.links for span in runs] == [(), (runs[0].id,), (runs[1].id,)]
    assert all(wait.end <= run.start for wait, run in zip(waits, runs, strict=True))
    for run in runs:
        called = below(tree, run)
        assert any("http.request.method" in span.attributes for span in called)
        assert any("db.statement" in span.attributes for span in called)
    assert SECRET.encode() not in traces.raw


def test_a_batch_with_its_callback_is_one_tree(demo: RunningDemo, traces: Traces) -> None:
    batch_id = in_shell(demo, MAKE_A_BATCH)

    def tree() -> list[Received]:
        made = {span.trace for span in traces.spans if span.attributes.get("switchyard.batch") == batch_id}
        return [span for span in traces.spans if span.trace in made]

    wait_for(lambda: len(named(tree(), "run purge_delivery_attempts")) == 4, what="three members and a callback")

    wait_for(lambda: roots_of(tree()) == ["make batch"], what="one root")
    [made] = named(tree(), "make batch")
    assert len([span for span in below(tree(), made) if span.name == "enqueue purge_delivery_attempts"]) == 4


def test_a_worker_that_drains_exports_what_is_left_and_its_poll_is_no_trace(demo: RunningDemo, traces: Traces) -> None:
    demo.ask("GET", "/readyz")
    job_id = demo.ask("POST", "/api/v1/emails", {"to": "reader@example.com", "template": "password_reset"})["job_id"]
    wait_for(lambda: demo.ask("GET", f"/api/v1/jobs/{job_id}")["state"] == "succeeded")

    demo.signal(signal.SIGTERM)

    assert demo.end() == 0
    assert [span.kind for span in traces.tree_of(job_id) if span.name.startswith("run ")] == [CONSUMER]
    assert all(span.parent or span.kind != CLIENT for span in traces.spans)
    assert not [span for span in traces.spans if "readyz" in str(span.attributes)]
