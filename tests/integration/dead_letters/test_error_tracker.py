"""A final failure in Sentry: real client, real workers, a receiver in the test; with and without its integration."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.factories.endpoints import Answering, answers_of

SECRET = "not-for-a-tracker"
WORK = """
import sys, time
import sentry_sdk
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
integrations = [DramatiqIntegration()] if sys.argv[2] == "with" else []
sentry_sdk.init(dsn=sys.argv[1], integrations=integrations, max_request_body_size="always", send_default_pii=True)

import django
django.setup()
import dramatiq
from switchyard import wiring
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from tests.factories.yards import small_yard
from tests.waiting import wait_for

broker = wiring.build_yard(
    small_yard(max_retries=2), connect(sys.argv[3]), Keys("sentry"), observers=wiring.error_tracker()
)

@dramatiq.actor(broker=broker, queue_name="work")
def failing(secret, own=False):
    held = [secret]
    if own:
        sentry_sdk.capture_message("of the project")
    raise RuntimeError(f"cannot pay with {held}")

@dramatiq.actor(broker=broker, queue_name="work", throws=(LookupError,))
def expected(secret):
    raise LookupError(secret)

sent = [failing.send("SECRET"), failing.send("SECRET", own=True), expected.send("SECRET")]
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=10)
worker.start()
records = facilities(broker).records
wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in sent))
worker.stop()
broker.emit_after("worker_shutdown", worker)
print(sent[0].message_id, sent[1].message_id)
""".replace("SECRET", SECRET)


@pytest.fixture
def tracker():
    """The address of a project in Sentry, and the envelopes that arrive."""
    envelopes: list[bytes] = []

    class Handler(Answering):
        def do_POST(self) -> None:
            envelopes.append(self.body())
            self.answer(200, b"{}")

    with answers_of(Handler) as port:
        yield f"http://key@127.0.0.1:{port}/1", envelopes


def events_in(envelopes: list[bytes]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for envelope in envelopes for line in envelope.splitlines() if line.startswith(b"{")]
    return [line for line in lines if "event_id" in line and "level" in line]


@pytest.mark.parametrize("integration", ["with", "without"])
def test_a_final_failure_is_one_event_without_arguments(integration, tracker, valkey, valkey_url):
    dsn, envelopes = tracker
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}

    done = subprocess.run(
        [sys.executable, "-c", WORK, dsn, integration, valkey_url],
        env=environment, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    job_ids = done.stdout.split()
    events = events_in(envelopes)
    failures = [event for event in events if "exception" in event]
    assert {event["contexts"]["job"]["id"] for event in failures} == set(job_ids)
    assert len(failures) == 2 and len({tuple(event["fingerprint"]) for event in failures}) == 1
    for event in failures:
        assert event["tags"] == {"actor": "failing", "queue": "work", "reason": "exhausted"}
        job = event["contexts"]["job"]
        assert job["link"].endswith(f"/{job['id']}/") and job["attempts"] == 3
        [failure] = event["exception"]["values"]
        assert failure["type"] == "RuntimeError" and failure["stacktrace"]["frames"][-1]["function"] == "failing"
    assert [event["message"] for event in events if "exception" not in event] == ["of the project"] * 3
    assert SECRET.encode() not in b"".join(envelopes)
