"""The page with the list of jobs: filters in its address, search, and who may see arguments."""

from __future__ import annotations

import pytest

from switchyard.jobs.services import submit
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row


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
