"""The page with the list of jobs: filters, search, who may see arguments, and acts on the jobs that are ticked."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.bulk import runner
from switchyard.bulk.models import BulkAct
from switchyard.jobs.services import submit
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row

CANCEL, AGAIN = (
    reverse("switchyard-bulk-begin", args=[kind]) for kind in ("job.cancel_chosen", "job.run_chosen_again")
)


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


LIST = "/admin/switchyard_jobs/job/"


def test_waiting_and_ended_jobs_are_in_one_list() -> None:
    waiting, ended = submit(probe_actors.add, kwargs={"a": 1, "b": 2}), job_row().job_id

    page = staff("view_job").get(LIST).content.decode()

    assert waiting in page and ended in page
    assert "the first 10,000 of each queue are looked through" in page


def test_filters_are_in_the_address_and_in_the_link_to_older_jobs() -> None:
    for _ in range(51):
        job_row(actor="probe_write")
    job_row(actor="probe_add")

    page = staff("view_job").get(LIST, {"actor": "probe_write", "state": ""})

    assert page.context["page"].after
    assert "?actor=probe_write&amp;after=" in page.content.decode()
    older = staff("view_job").get(LIST + page.context["older"])
    assert [line.actor for line in older.context["page"].jobs] == ["probe_write"]
    assert "Newest" in older.content.decode()


@pytest.mark.parametrize(
    ("query", "text"),
    [({"state": "lost"}, "state: &#x27;lost&#x27; is not a state"), ({"colour": "x"}, "colour: is not a filter"),
     ({"after": "x"}, "is not a place in a list"), ({"since": "soon"}, "is not a time")],
)  # fmt: skip
def test_an_address_that_is_wrong_says_what_is(query: dict[str, str], text: str) -> None:
    page = staff("view_job").get(LIST, query)

    assert page.status_code == 400
    assert text in page.content.decode()


def test_what_matches_is_cancelled_from_the_list_after_a_question() -> None:
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    client = staff("view_job", "cancel_job")
    link = "/admin/operations/bulk/begin/job.cancel/?actor=probe_add"

    assert link in client.get(LIST, {"actor": "probe_add"}).content.decode()
    assert client.get(link).status_code == 200
    assert "job.cancel/?" not in client.get(LIST).content.decode()
    assert "job.cancel/?" not in client.get(LIST, {"state": "dead"}).content.decode()
    assert link not in staff("view_job").get(LIST, {"actor": "probe_add"}).content.decode()


def test_hidden_arguments_cannot_be_found_out() -> None:
    submit(probe_actors.keep_secret, kwargs={"to": "mia", "pages": 3})
    client = staff("view_job", "view_arguments", "cancel_job")
    begin = "/admin/operations/bulk/begin/job.cancel/"

    for value in ("mia", "[redacted]"):
        assert client.get(LIST, {"argument": f"to={value}"}).context["page"].jobs == ()
        assert client.get(begin, {"argument": f"to={value}"}).context["planned"].total == 0
    assert client.get(begin, {"argument": "pages=3"}).context["planned"].total == 1
    operator = staff("view_job", "cancel_job")
    for address, query in ((LIST, {}), (f"{LIST}live/", {"shown_at": "0"}), (begin, {})):
        assert operator.get(address, {"argument": "pages=3", **query}).status_code == 403, address


def waiting() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2})


def begin(client: Client, address: str, jobs: list[str]) -> BulkAct:
    """Start an act as the form does, and do it."""
    query = "&".join(f"job={id_}" for id_ in jobs)
    client.post(f"{address}?{query}", {"count": str(len(jobs)), "reason": "duplicates", "form_id": "form"})
    act = BulkAct.objects.get()
    while runner.take_step(act.pk, act.run) is not None:
        pass
    act.refresh_from_db()
    return act


def test_jobs_can_be_ticked_by_who_may_do_something_to_them() -> None:
    live, ended = waiting(), job_row().job_id

    cancels, runs, reads = (
        staff("view_job", *rights).get(LIST).content.decode() for rights in (("cancel_job",), ("run_job",), ())
    )

    assert [f'name="job" value="{id_}"' in cancels for id_ in (live, ended)] == [True, False]
    assert [f'name="job" value="{id_}"' in runs for id_ in (live, ended)] == [False, True]
    assert [CANCEL in cancels, AGAIN in cancels, CANCEL in runs, AGAIN in runs] == [True, False, False, True]
    assert 'name="job"' not in reads and CANCEL not in reads and AGAIN not in reads


def test_the_ticked_are_named_before_they_are_cancelled_and_no_others(facilities: Facilities) -> None:
    client, chosen, other = staff("view_job", "cancel_job"), [waiting(), waiting()], waiting()

    asked = client.get(CANCEL, {"job": [*chosen, "no id!"]}).content.decode()
    assert "Cancel 2 jobs?" in asked and all(id_ in asked for id_ in chosen) and other not in asked
    assert facilities.records.states(chosen) == ["queued", "queued"]
    act = begin(client, CANCEL, chosen)

    assert facilities.records.states([*chosen, other]) == ["cancelled", "cancelled", "queued"]
    assert (act.state, act.total, act.done, act.skips) == ("done", 2, 2, {})
    row = AuditEntry.objects.get(act="job.cancel")
    assert (row.count, row.reason, row.detail["filter"]) == (2, "duplicates", {"job": ",".join(chosen)})


def test_nothing_is_done_without_a_choice_or_the_right(facilities: Facilities) -> None:
    job = waiting()

    assert "none was chosen" in staff("view_job", "cancel_job").get(CANCEL).content.decode()
    assert "Nothing matches" in staff("view_job", "run_job").get(AGAIN, {"job": job}).content.decode()
    assert staff("view_job").post(f"{CANCEL}?job={job}", {"count": "1", "reason": "x"}).status_code == 403
    assert facilities.records.states([job]) == ["queued"]


def test_ended_jobs_run_again_once_and_the_others_say_why_not(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST", 2)
    ended = [job_row(arguments='{"a": 1, "b": 2}').job_id for _ in "12"]
    cut, live = job_row(arguments='{"a": 1').job_id, waiting()

    act = begin(staff("view_job", "run_job"), AGAIN, [*ended, cut, live])

    assert (act.state, act.total, act.done) == ("done", 3, 2)
    assert act.skips == {"its arguments are not kept whole, or its actor is unknown": 1, "has not ended": 1}
    assert facilities.transport.stats("default").live.waiting == 3
