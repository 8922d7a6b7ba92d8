"""Pauses with a reason and an end: what is stored, who sees it, and how a queue resumes by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError

from switchyard.audit.models import AuditEntry
from switchyard.broker.admin.stats import pause_of
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.queues.services import pause_queue
from tests.factories.commands import json_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
KEY = Keys().queue("default").paused


def pause_of_default() -> dict[str, Any]:
    found: dict[str, Any] = next(queue for queue in json_of("queues") if queue["queue"] == "default")
    return found


@pytest.fixture
def starts(facilities: Facilities) -> Iterator[list[float]]:
    """Times at which the messages of an actor started; call ``send`` of the actor ``timed``."""
    started: list[float] = []

    @dramatiq.actor(actor_name="timed", queue_name="default")
    def timed() -> None:
        started.append(time.time())

    yield started
    del dramatiq.get_broker().actors["timed"]


def test_a_pause_names_its_operator_its_reason_and_its_end(facilities: Facilities) -> None:
    told = json_of("queues", "pause", "default", "--until", "2h", "--reason", "disk is full")

    pause = pause_of_default()["pause"]
    assert told["until"][:19] == pause["until"][:19]
    assert (pause["reason"], bool(pause["by"])) == ("disk is full", True)
    lasts_s = (datetime.fromisoformat(pause["until"]) - datetime.fromisoformat(pause["since"])).total_seconds()
    assert 7_190 < lasts_s <= 7_201
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.target, entry.reason, entry.via, entry.outcome) == (
        "queue.pause", "default", "disk is full", "command", "done",
    )  # fmt: skip


@pytest.mark.parametrize("within_s", [inf, pytest.param(1.0, marks=pytest.mark.long)])
def test_an_idle_worker_starts_within_a_second_of_the_end(
    starts: list[float], run_worker: Any, within_s: float
) -> None:
    with run_worker("default"):
        until = time.time() + 5
        json_of("queues", "pause", "default", "--until", datetime.fromtimestamp(until, UTC).isoformat())
        for _ in range(20):
            dramatiq.get_broker().actors["timed"].send()
        wait_for(lambda: len(starts) == 20)

    assert min(starts) >= until - 0.01
    assert max(starts) - until < within_s
    assert pause_of_default()["pause"] is None


def test_a_reason_and_an_end_are_replaced_and_the_start_stays(valkey: redis.Redis, facilities: Facilities) -> None:
    json_of("queues", "pause", "default", "--until", "1h", "--reason", 'first "quoted" \n ünïcode')
    first = pause_of(valkey.get(KEY), KEY)

    json_of("queues", "pause", "default", "--reason", "second")
    second = pause_of(valkey.get(KEY), KEY)

    assert first is not None and second is not None
    assert first.reason == 'first "quoted" \n ünïcode'
    assert (second.since, second.until, second.reason) == (first.since, None, "second")
    assert valkey.pttl(KEY) == -1


@pytest.mark.parametrize("text", ["yesterday", "2020-01-01", "0s", "400d", "25:00"])
def test_an_end_that_is_over_or_no_time_is_refused(facilities: Facilities, text: str) -> None:
    with pytest.raises(CommandError, match="write a span"):
        json_of("queues", "pause", "default", "--until", text)

    assert pause_of_default()["paused"] is False


def test_a_job_pauses_its_queue_until_a_time(facilities: Facilities, run_worker: Any) -> None:
    @dramatiq.actor(actor_name="asked", queue_name="default")
    def asked() -> None:
        pause_queue(datetime.now(UTC) + timedelta(hours=1), "the server asks to wait")

    with pytest.raises(LookupError, match="no job runs here"):
        asked.fn()
    try:
        job_id = asked.send().message_id
        with run_worker("default"):
            wait_for(lambda: facilities.records.states([job_id]) == ["succeeded"])
    finally:
        del dramatiq.get_broker().actors["asked"]

    assert (found := facilities.transport.stats("default").pause) is not None
    assert (found.by, found.reason) == (f"job {job_id}", "the server asks to wait")
    assert AuditEntry.objects.filter(act="queue.pause", who=f"job {job_id}").exists()
