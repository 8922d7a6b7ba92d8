"""A job that lacks a table, or does not await a query, fails with what to do."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
import redis
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection

from switchyard.broker.interface import facilities
from switchyard.failure_notes import IN_EVENT_LOOP, NO_TABLE, FailureNotes
from tests.conftest import RunWorker
from tests.waiting import wait_for

pytestmark = pytest.mark.database


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT 1 FROM loyalty_points", True),
        ("SELECT colour FROM auth_user", True),
        ("INSERT INTO auth_group (colour) VALUES (1)", True),
        ("SELECT 1 FROM", False),
    ],
)
def test_the_failure_names_the_command(db: None, statement: str, told: bool) -> None:
    unused: Any = None
    with pytest.raises(DatabaseError) as failed, connection.cursor() as cursor:
        cursor.execute(statement)

    FailureNotes().after_process_message(unused, unused, exception=failed.value)

    assert getattr(failed.value, "__notes__", []) == ([NO_TABLE] if told else [])


@pytest.mark.django_db(transaction=True)
def test_the_dead_letter_of_such_a_job_has_the_remedy(valkey: redis.Redis, run_worker: RunWorker) -> None:
    broker = dramatiq.get_broker()

    def count_points() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM loyalty_points")

    actor = dramatiq.actor(count_points, queue_name="default", actor_name="probe_points", max_retries=0)
    try:
        job_id = actor.send().message_id
        with run_worker("default"):
            wait_for(lambda: facilities().transport.find_dead_letter("default", job_id))
    finally:
        del broker.actors["probe_points"]

    letter = facilities().transport.find_dead_letter("default", job_id)
    assert letter is not None
    assert NO_TABLE in letter.traceback


@pytest.mark.django_db(transaction=True)
def test_the_dead_letter_of_an_async_actor_that_does_not_await_a_query_has_the_remedy(
    valkey: redis.Redis, run_worker: RunWorker
) -> None:
    broker = dramatiq.get_broker()

    @dramatiq.actor(queue_name="default", actor_name="probe_groups", max_retries=0)
    async def count_groups() -> int:
        return Group.objects.count()

    try:
        job_id = count_groups.send().message_id
        with run_worker("default"):
            wait_for(lambda: facilities().transport.find_dead_letter("default", job_id))
    finally:
        del broker.actors["probe_groups"]

    letter = facilities().transport.find_dead_letter("default", job_id)
    assert letter is not None
    assert letter.exception == "SynchronousOnlyOperation"
    assert IN_EVENT_LOOP in letter.traceback
