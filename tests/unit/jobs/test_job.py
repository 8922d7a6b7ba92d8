"""One job, made from each of its sources, its JSON form, when it is expected to start, and how its values are found."""

import json
import random
from typing import Any

import pytest

from switchyard.broker.queue import json_body
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores import job_record
from switchyard.broker.stores.history_streams import EndedJob, Failure, LiveJob
from switchyard.broker.stores.job_record import FamilyAnswer, Job, job_of_ended, job_of_live
from switchyard.history.filters import search_text
from switchyard.history.models import AttemptRow, JobRow
from switchyard.history.queries import job_of_attempt, job_of_row
from switchyard.history.writer import rows_of
from switchyard.jobs.api import JobBody
from switchyard.jobs.listing.pages import _is_plain
from switchyard.jobs.passport.why import LEAST_STARTS, expected
from switchyard.jobs.presentation import INTERNAL, attempts_of, error_line, job_json, run_json, snapshot
from tests.factories.slots import worked

OPTIONS: dict[str, Any] = {
    "enqueued_at": 1_000, "owner": "user:1", "tags": ["monthly"], "parent": "j-0", "generation": 1,
}  # fmt: skip
FIELDS = {"actor": "export", "sent_at": 900, "args": [], "kwargs": {"a": 1}, "options": OPTIONS}
WORKER = "slow.web-1.4711.0a1b2c3d.2.7"


def body(**options: Any) -> bytes:
    return json_body.encode({**FIELDS, "options": OPTIONS | options})


def sources() -> dict[str, Job]:
    """Return a job of one message that failed once, made from each source."""
    failure = Failure("ValueError", "no", "f00d")
    ran: dict[str, Any] = {"attempt": 1, "generation": 1, "started_at": 2_000, "error": failure, "worker": WORKER}
    answer = FamilyAnswer("default", b"", b"", b"", body(attempts=1), b"", b"", b"9000", b"")
    ended = EndedJob("j-1", "dead", "exhausted", finished_at=5_000, body=body(), **ran)
    columns = rows_of(ended, "default").job | {"tags": ["monthly"], "arguments": '{"a": 1}'}
    letter = DeadLetter(
        "j-1", "default", "export", FIELDS | {"message_timestamp": 900}, "exhausted", "ValueError", "no", "", 1, 1_000,
        5_000, 3_000, "f00d",
    )  # fmt: skip
    return {
        "message": job_record.job_of_message("j-1", "default", body(attempts=1), due_at=9_000),
        "live": job_of_live(LiveJob("j-1", "retrying", next_attempt_at=9_000, **ran), answer),
        "ended": job_of_ended(ended, "default"),
        "letter": job_record.job_of_letter(letter, "default"),
        "row": job_of_row(JobRow(**columns)),
    }


@pytest.mark.parametrize("source", ["message", "live", "ended", "letter", "row"])
def test_every_source_makes_the_same_job(source):
    job = sources()[source]

    assert (job.id, job.actor, job.queue, job.attempts, job.generation) == ("j-1", "export", "default", 1, 1)
    assert (job.owner, list(job.tags), job.parent, job.enqueued_at) == ("user:1", ["monthly"], "j-0", 1_000)
    assert job.kwargs == {"a": 1} or job.arguments == {"a": 1}
    if job.ended:
        assert (job.state, job.reason, job.finished_at, job.at) == ("dead", "exhausted", 5_000, 5_000)
    else:
        assert (job.state, job.next_attempt_at, job.at) == ("retrying", 9_000, 1_000)
    if source != "message":
        assert (error_line(job), job.fingerprint) == ("ValueError: no", "f00d")
    shown = job_json(job, arguments=True)
    assert JobBody(**shown).model_dump() == shown
    assert (shown["enqueued_at"], job_json(job)["arguments"]) == ("1970-01-01T00:00:01.000000Z", None)


@pytest.mark.parametrize(
    ("due_at", "options", "known"),
    [
        (b"9000", {"deferred_by": "lock", "due_at": 9_000}, ("scheduled", "lock", 0, 9_000)),
        (b"", {"deferred_by": "lock", "due_at": 9_000}, ("queued", None, 0, None)),
        (b"", {"deferred_by": "lock", "due_at": 2_100}, ("running", None, 1, None)),
        (b"", {"deferred_by": "rate_limit", "due_at": 1_900}, ("running", None, 1, None)),
        (b"", {"due_at": 9_000}, ("running", None, 1, None)),
    ],
    ids=["scheduled", "due again", "started again, by a slow clock", "started", "adopted early"],
)
def test_a_job_that_was_put_off_after_its_start_does_not_run(due_at, options, known):
    answer = FamilyAnswer("default", b"", b"", b"", body(attempts=0, **options), b"", b"", due_at, b"")

    job = job_of_live(LiveJob("j-1", "running", attempt=1, started_at=2_000), answer)

    assert (job.state, job.reason, job.attempts, job.next_attempt_at) == known


def test_the_api_declares_every_field_of_the_json_form_in_its_order_and_takes_what_is_not_known():
    shown = job_json(Job("j-1", state="queued"))
    body = JobBody.model_validate(shown)

    assert list(JobBody.model_fields) == list(shown)
    assert not set(INTERNAL) - {"arguments"} & set(shown)
    assert (body.actor, body.queue, body.owner) == ("", "", None)


def test_an_event_says_what_is_known():
    data = snapshot(sources()["ended"])

    assert (data["state"], data["attempts"], data["worker"]) == ("dead", 1, "slow on web-1 (pid 4711), child 2")
    assert data["error"] == {"type": "ValueError", "message": "no"}
    assert "next_attempt_at" not in data and "result" not in data and "arguments" not in data


def test_the_attempts_of_a_job_are_in_order_and_the_last_is_as_it_stands():
    first = AttemptRow(
        job_id="j-1", generation=0, attempt=1, state="retrying", started_at=1, finished_at=4, error_type="Timeout",
        logs="put failed",
    )  # fmt: skip

    attempts = attempts_of([job_of_attempt(first)], sources()["row"], None)

    shown = [run_json(each) for each in attempts]
    said = [(each["generation"], each["attempts"], each["state"], each["run_ms"]) for each in shown]
    assert said == [(0, 1, "retrying", 3), (1, 1, "dead", 3_000)]
    assert (shown[0]["logs"], shown[0]["error"]) == ("put failed", {"type": "Timeout", "message": ""})
    assert attempts_of([], Job("j-1", state="queued", attempts=1, started_at=5), None) == ()


@pytest.mark.parametrize(
    ("known", "waited_ms"),
    [
        ({}, 1_000),
        ({"due_at": 1_800}, 200),
        ({"attempt": 2}, None),
        ({"generation": 1}, None),
        ({"started_at": None}, None),
    ],
)
def test_a_job_on_its_first_attempt_has_waited_since_it_was_ready(known, waited_ms):
    message = body(generation=0, **{name: value for name, value in known.items() if name == "due_at"})
    ran = {"attempt": 1, "started_at": 2_000} | {name: value for name, value in known.items() if name != "due_at"}

    job = job_of_ended(EndedJob("j-1", "succeeded", finished_at=5_000, body=message, **ran), "default")

    assert (job.wait_ms, job.run_ms) == (waited_ms, None if ran["started_at"] is None else 3_000)


VALUES = [
    *("customer-7", "mia@example.org", "7", "a b", 'say "hi"', "back\\slash", "grün", -5, 1.5, 1e-7, 1e22, True),
    "1e3",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_plain_value_is_in_its_json_as_it_is_searched_for(value):
    text = search_text(value)

    assert not _is_plain(text) or text in json.dumps({"name": value})


DRAWS = 1_200


def test_nine_of_ten_ranges_hold():
    draw = random.Random(11)
    by_place: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(DRAWS):
        work = worked(draw)
        started = sorted([*(start for start, _ in work.ended), *work.running])
        if found := expected(started, work.ahead + 1, 0):
            by_place[work.ahead > 10].append(found[0] <= work.starts_at <= found[1])

    held = by_place[True] + by_place[False]
    assert len(held) > 0.99 * DRAWS
    assert 0.87 <= sum(held) / len(held) <= 0.93
    assert all(0.85 <= sum(each) / len(each) <= 0.95 for each in by_place.values())


@pytest.mark.parametrize(
    ("started", "at"),
    [
        ([], 0),
        ([1_000 * place for place in range(LEAST_STARTS)], 9_000),
        ([5] * 50, 10),
        ([1_000 * place for place in range(60)], 600_000),  # nothing has started for ten minutes
    ],
)  # fmt: skip
def test_without_a_rate_nothing_is_expected(started, at):
    assert expected(started, 3, at) is None
