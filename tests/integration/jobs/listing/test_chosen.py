"""Jobs that are chosen in the list, and the acts on them: cancel, run now, run again."""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.http import HttpResponse
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import request_cancel, submit
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.jobs.listing.test_page import LIST, staff

CANCEL, RUN_NOW, RUN_AGAIN = (
    reverse("switchyard-jobs-chosen", args=[verb]) for verb in ("cancel", "run-now", "run-again")
)


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def waiting() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2})


def test_only_unfinished_jobs_can_be_chosen_by_who_may_cancel() -> None:
    live, ended = waiting(), job_row().job_id

    may, may_not = (staff(*rights).get(LIST).content.decode() for rights in (("view_job", "cancel_job"), ("view_job",)))

    assert f'name="job" value="{live}"' in may and f'name="job" value="{ended}"' not in may
    assert CANCEL in may and "Cancel chosen…" in may
    assert 'name="job"' not in may_not and CANCEL not in may_not


def test_the_chosen_are_named_before_they_are_cancelled_each_with_its_row(facilities: Facilities) -> None:
    client, chosen, other = staff("view_job", "cancel_job"), [waiting(), waiting()], waiting()

    asked = client.get(CANCEL, {"job": [*chosen, "no id!"]}).content.decode()
    assert "Cancel 2 chosen jobs?" in asked and all(id_ in asked for id_ in chosen) and f'value="{other}"' not in asked
    assert facilities.records.states(chosen) == ["queued", "queued"]
    answer = client.post(CANCEL, {"job": chosen, "reason": "duplicates"})

    assert facilities.records.states([*chosen, other]) == ["cancelled", "cancelled", "queued"]
    assert [str(each) for each in get_messages(answer.wsgi_request)] == ["2 jobs were cancelled and will not start."]
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "reason")
    assert list(rows) == [("job.cancel", id_, "duplicates") for id_ in chosen]


def test_nothing_is_done_without_a_choice_or_the_right(facilities: Facilities) -> None:
    job = waiting()
    operator = staff("view_job", "cancel_job")

    assert "No job was chosen" in operator.get(CANCEL).content.decode()
    assert "No job was chosen" in operator.post(CANCEL).content.decode()
    assert staff("view_job").post(CANCEL, {"job": job}).status_code == 403
    assert facilities.records.states([job]) == ["queued"]


def later() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2}, delay_ms=3_600_000)


def told(answer: HttpResponse) -> list[str]:
    return [str(each) for each in get_messages(answer.wsgi_request)]


def test_scheduled_jobs_are_run_now_and_the_others_are_left_out(facilities: Facilities) -> None:
    client, chosen, other = staff("view_job", "run_job"), [later(), later()], waiting()

    asked = client.get(RUN_NOW, {"job": [*chosen, other]}).content.decode()
    answer = client.post(RUN_NOW, {"job": chosen, "reason": "the partner is back"})

    assert "Run 2 chosen jobs now?" in asked and "1 of the chosen" in asked and f'value="{other}"' not in asked
    assert told(answer) == ["2 jobs start as soon as a slot is free."]
    assert all((job := find_job(id_)) and (job.next_attempt_at or 0) <= now_ms() for id_ in chosen)
    rows = AuditEntry.objects.order_by("id").values_list("act", "target", "reason", "count")
    assert list(rows) == [("job.run_now", id_, "the partner is back", 1) for id_ in chosen]


def test_ended_jobs_run_again_once_however_often_the_form_is_sent(facilities: Facilities) -> None:
    client = staff("view_job", "run_job")
    ended = [job_row(arguments='{"a": 1, "b": 2}').job_id for _ in "12"]
    cut = job_row(arguments='{"a": 1').job_id
    form_id = client.get(RUN_AGAIN, {"job": [*ended, cut]}).context["form_id"]

    answers = [client.post(RUN_AGAIN, {"job": [*ended, cut], "form_id": form_id}) for _ in "12"]

    assert told(answers[0]) == [
        "2 jobs are enqueued again, as new jobs; 1 job cannot run again: its arguments are not kept whole, or this "
        "code has not its actor."
    ]
    sent = set(AuditEntry.objects.filter(act="job.run_again", outcome="done").values_list("detail__job", flat=True))
    assert len(sent) == 2 and facilities.records.states(sorted(sent)) == ["queued", "queued"]
    assert facilities.transport.stats("default").live.waiting == 2


LEFT = (
    "The broker does not answer: of the {} chosen jobs that are left one may be cancelled, the others are not. "
    "Check /readyz, then choose them again."
)


@pytest.mark.parametrize(("reached", "texts"), [(2, ["2 jobs were cancelled and will not start."]), (0, [])])
def test_an_act_that_breaks_off_says_how_many_it_reached(
    monkeypatch: pytest.MonkeyPatch, reached: int, texts: list[str]
) -> None:
    calls: list[str] = []

    def cancel_until_the_broker_is_away(job_id: str, **details: Any) -> str:
        calls.append(job_id)
        if len(calls) > reached:
            raise BrokerUnavailable("cancel a job", "the server is away")
        return request_cancel(job_id, **details)

    monkeypatch.setattr("switchyard.jobs.listing.chosen_acts.request_cancel", cancel_until_the_broker_is_away)

    answer = staff("view_job", "cancel_job").post(CANCEL, {"job": [waiting() for _ in range(4)]})

    assert answer.status_code == 503 and told(answer) == texts
    assert LEFT.format(4 - reached) in html.unescape(answer.content.decode())
    assert len(calls) == reached + 1
