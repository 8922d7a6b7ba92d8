"""The API with the outbox: accepted while the broker is away, refused once the table is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest

from switchyard.api.request_jobs import RequestJobs, request_jobs
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.jobs.services import request_cancel, submit
from switchyard.operations.findings.records import look_at_outbox
from switchyard.outbox import rows
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.relay import Relay
from switchyard.outbox.rows import outbox_metrics
from tests.factories.callers import Caller
from tests.integration.outbox.conftest import MakeBroker, actor_on

pytestmark = pytest.mark.django_db(transaction=True)

EMAIL = {"to": "ada@mail.example", "template": "welcome"}


@contextmanager
def broker_away() -> Iterator[None]:
    def away(*args: Any, **options: Any) -> Any:
        raise BrokerUnavailable("enqueue", "timeout")

    broker = dramatiq.get_broker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "put", away)
        patch.setattr(broker.switchyard.records, "states", away)
        yield
    broker.postpone._left_until_s = 0.0


@pytest.fixture
def relay(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> Relay:
    monkeypatch.setattr("switchyard.outbox.relay.LEFT_TO_SENDER_MS", -1_000)
    return Relay(lambda job_ids, queue: ())


def test_a_job_is_accepted_while_the_broker_is_away_and_sent_later(facilities: Facilities, relay: Relay) -> None:
    caller = Caller()

    with broker_away():
        answer = caller.post("/emails", EMAIL)
    job_id = answer.json()["job_id"]
    during = caller.get(f"/jobs/{job_id}").json()
    relay.step()
    after = caller.get(f"/jobs/{job_id}").json()

    assert answer.status_code == 202
    assert (during["state"], during["reason"], during["actor"]) == ("scheduled", "outbox", "send_welcome_mail")
    assert (after["state"], after["reason"]) == ("queued", None)


def test_a_key_makes_one_job_of_two_requests_while_the_broker_is_away(facilities: Facilities, relay: Relay) -> None:
    caller = Caller()
    caller.headers["Idempotency-Key"] = "one"

    with broker_away():
        first, second = (caller.post("/emails", EMAIL) for _ in range(2))
    relay.step()

    assert (first.status_code, second.json()) == (202, first.json())
    assert facilities.transport.stats("default").live.waiting == 1


def test_a_job_in_the_outbox_can_be_cancelled(facilities: Facilities, relay: Relay) -> None:
    with broker_away():
        job_id = Caller().post("/emails", EMAIL).json()["job_id"]

    answer = request_cancel(job_id)
    relay.step()

    assert answer == "cancelled"
    assert (OutboxRow.objects.count(), facilities.transport.stats("default").live.waiting) == (0, 0)


def test_a_full_outbox_is_answered_with_429(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 1)
    monkeypatch.setattr(rows, "COUNT_EVERY_S", -1.0)
    caller = Caller()

    with broker_away():
        accepted, refused = (caller.post("/emails", EMAIL) for _ in range(2))

    assert (accepted.status_code, refused.status_code) == (202, 429)
    assert int(refused["Retry-After"]) > 0
    assert refused.json()["outcome"] == "not_enqueued"


def test_a_unique_key_that_is_held_answers_with_the_holders_id(make_broker: MakeBroker) -> None:
    greet = actor_on(make_broker("outbox"), unique_key=lambda name: name)

    with request_jobs(RequestJobs()) as request:
        first, second = submit(greet, "Ada"), submit(greet, "Ada")

    assert (first, request.job_ids) == (second, [first, first])


def test_depth_and_age_are_metrics_and_a_finding(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker_away():
        Caller().post("/emails", EMAIL)
    [calm] = look_at_outbox()
    OutboxRow.objects.update(created_ms=1)
    found = {sample.name: sample.value for family in outbox_metrics() for sample in family.samples}
    [late] = look_at_outbox()
    monkeypatch.setattr("switchyard.operations.findings.records.MOST_ROWS", 1)
    [full] = look_at_outbox()

    assert (calm.severity, late.severity, full.severity) == ("ok", "warning", "error")
    assert late.seen.startswith("1 message waits in the outbox, the oldest for ")
    assert found["switchyard_outbox_rows"] == 1
    assert found["switchyard_outbox_oldest_seconds"] > 1_000_000
