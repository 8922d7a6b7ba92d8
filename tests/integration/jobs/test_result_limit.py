"""``manage.py switchyard jobs show`` of a job whose result is over the limit."""

from __future__ import annotations

import io
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command

from switchyard.broker.interface import Facilities
from tests.waiting import wait_for

WHY = "result of 50000002 bytes is not stored, at most 16777216 are; store what is large, and return its name"


@pytest.mark.django_db
def test_jobs_show_says_why_a_result_is_missing(facilities: Facilities, run_worker: Any) -> None:
    broker = dramatiq.get_broker()

    @dramatiq.actor(broker=broker, queue_name="default", store_results=True)
    def returns_much() -> str:
        return "x" * 50_000_000

    try:
        with run_worker("default"):
            job_id = returns_much.send().message_id
            wait_for(lambda: (found := facilities.records.read(job_id)) and found.ended)
    finally:
        del broker.actors["returns_much"]
    out = io.StringIO()
    call_command("switchyard", "jobs", "show", job_id, stdout=out)

    assert "succeeded" in out.getvalue()
    assert WHY in out.getvalue()
