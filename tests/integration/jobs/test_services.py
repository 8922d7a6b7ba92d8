"""Work is sent, followed and stopped through the services of jobs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import redis
from django.db import transaction
from dramatiq.middleware import CurrentMessage

from switchyard.broker.errors import BrokerRefused, PayloadTooLarge, UnencodablePayload
from switchyard.broker.interface import facilities
from switchyard.jobs.queries import find_job, visible_job
from switchyard.jobs.services import enqueue_on_commit, report_progress, submit
from switchyard.middleware.errors import ArgumentMismatch
from tests.factories.brokers import broker_without_server
from tests.integration.jobs import probe_actors

JOB_ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"


def state(job_id: str) -> str:
    job = find_job(job_id)
    return "" if job is None else job.state


def test_submit_takes_arguments_as_send_does(valkey: redis.Redis) -> None:
    submit(probe_actors.add, 1, kwargs={"b": 2})
    submit(probe_actors.add, 1, b=2)
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'b'; it is declared as probe_add"):
        submit(probe_actors.add, 1)

    assert facilities().transport.stats("default").live.waiting == 2


@pytest.mark.parametrize("job_id", ["invoice-5", JOB_ID.upper(), uuid.UUID(JOB_ID)])
def test_a_job_id_that_would_never_be_found_is_refused(valkey: redis.Redis, job_id: Any) -> None:
    for send in (submit, enqueue_on_commit):
        with pytest.raises(ValueError, match="is not a UUID in lower case"):
            send(probe_actors.add, job_id=job_id, kwargs={"a": 1, "b": 2})

    assert facilities().transport.stats("default").live.waiting == 0


@pytest.mark.usefixtures("transactional_db")
def test_a_delay_of_a_job_is_counted_from_the_commit() -> None:
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, 1, 2, delay_ms=60_000)

    assert state(job_id) == "scheduled"


@pytest.mark.usefixtures("transactional_db")
def test_a_job_is_sent_when_the_transaction_commits() -> None:
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
        before = find_job(job_id)

    assert before is None
    assert state(job_id) == "queued"


@pytest.mark.usefixtures("transactional_db")
def test_a_job_is_never_sent_when_the_transaction_rolls_back() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, kwargs={"a": 1, "b": 2})
        1 / 0  # noqa: B018

    assert find_job(job_id) is None
    assert facilities().transport.stats("default").live.waiting == 0


@pytest.mark.usefixtures("transactional_db")
def test_arguments_are_checked_before_the_commit() -> None:
    with transaction.atomic():
        for call in ({"kwargs": {"c": 1}}, {"a": 1, "c": 2}, {"kwarg": {"a": 1, "b": 2}}):
            with pytest.raises(ArgumentMismatch, match=r"probe_add\(a: .* at \S+probe_actors.py:\d+"):
                enqueue_on_commit(probe_actors.add, **call)
        with pytest.raises(ArgumentMismatch, match="too many positional arguments"):
            enqueue_on_commit(probe_actors.add, 1, 2, 3)


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize(
    ("error", "value"), [(UnencodablePayload, object()), (UnencodablePayload, {1}), (PayloadTooLarge, "x" * 2_000_000)]
)
def test_arguments_that_cannot_be_sent_are_refused_before_the_commit(error: type[Exception], value: Any) -> None:
    with transaction.atomic(), pytest.raises(error):
        enqueue_on_commit(probe_actors.note, value)


def test_a_broker_that_is_away_costs_a_progress_report_and_not_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CurrentMessage, "get_current_message", lambda: probe_actors.add.message(1, 2))

    with broker_without_server():
        report_progress(1, 2)


def test_a_refused_progress_report_does_not_fail_the_job(monkeypatch: pytest.MonkeyPatch, valkey: redis.Redis) -> None:
    job_id = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
    message = probe_actors.add.message(1, 2).copy(message_id=job_id)
    monkeypatch.setattr(CurrentMessage, "get_current_message", lambda: message)
    valkey.set(facilities().records.keys.queue("default").jobs, "of a wrong type")

    report_progress(1, 2)

    with pytest.raises(BrokerRefused, match="WRONGTYPE"):
        find_job(job_id)


@pytest.mark.parametrize(
    ("owner", "asks", "operator", "seen"),
    [
        *(("user:1", "user:1", False, True), ("user:1", "user:2", False, False), ("user:1", "user:2", True, True)),
        *(("", "", False, False), ("", "user:1", False, False), ("", "user:1", True, True)),
    ],
)
def test_a_job_is_seen_by_its_owner_and_by_operators(
    valkey: redis.Redis, owner: str, asks: str, operator: bool, seen: bool
) -> None:
    job_id = submit(probe_actors.add, owner=owner, kwargs={"a": 1, "b": 2})

    assert (visible_job(job_id, owner=asks, operator=operator) is not None) == seen
