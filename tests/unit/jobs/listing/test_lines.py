"""A job's record as a line of a list."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.stores.job_records import JobRecord
from switchyard.jobs.api import JobItem
from switchyard.jobs.listing.pages import line_of_record


def record(**known: Any) -> JobRecord:
    values: dict[str, Any] = {
        "id": "j-1", "actor": "export", "queue": "default", "state": "running", "reason": None, "attempts": 1,
        "progress": None, "enqueued_at": 1_000, "started_at": 2_000, "finished_at": None, "next_attempt_at": None,
        "result": None, "error": None, "owner": "user:1", "cancel_requested": False,
    }  # fmt: skip
    return JobRecord(**(values | known))


def test_an_unfinished_job_is_placed_by_the_time_it_was_enqueued() -> None:
    line = line_of_record(record(kwargs={"a": 1}, tags=("monthly",)), arguments=False)

    assert (line.at, line.is_live, line.run_ms, line.tags) == (1_000, True, None, ("monthly",))
    assert line.arguments is None


def test_the_api_declares_every_field_of_a_line() -> None:
    assert set(JobItem.model_fields) == set(line_of_record(record(), arguments=False).as_json())


def test_an_ended_job_is_placed_by_its_end_and_says_why_it_failed() -> None:
    ended = record(state="dead", finished_at=5_000, error={"type": "ValueError", "message": "no" * 100})

    line = line_of_record(ended, arguments=False)

    assert (line.at, line.is_live, line.run_ms) == (5_000, False, 3_000)
    assert line.error.startswith("ValueError: nono") and len(line.error) == 120


def test_a_job_that_was_cancelled_before_its_start_has_no_times_to_run() -> None:
    line = line_of_record(record(state="cancelled", started_at=None), arguments=False)

    assert (line.at, line.run_ms) == (1_000, None)


@pytest.mark.parametrize(
    ("known", "waited_ms"),
    [({}, 1_000), ({"due_at": 1_800}, 200), ({"started_at": None}, None), ({"attempts": 2}, None)],
)
def test_a_job_on_its_first_attempt_has_waited_since_it_was_ready(known: dict[str, Any], waited_ms: int | None) -> None:
    assert line_of_record(record(**known), arguments=False).wait_ms == waited_ms
