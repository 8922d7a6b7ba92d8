"""The page with the list of jobs: filters in its address, search, and who may see arguments."""

from __future__ import annotations

import html

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import Facilities
from switchyard.broker.keys.keys import Keys
from switchyard.jobs.services import submit
from switchyard.leadership import HISTORY_WRITER
from tests.integration.history.conftest import ended_job, put_into
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def staff(*permissions: str) -> Client:
    """Return a client of a staff user with permissions."""
    user = User.objects.create_user(f"staff{User.objects.count()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


LIST = "/admin/switchyard_jobs/job/"


def test_the_list_keeps_its_address() -> None:
    assert reverse("switchyard-jobs") == LIST


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
    assert [line.actor for line in older.context["page"].lines] == ["probe_write"]
    assert "Newest" in older.content.decode()


def test_the_preset_finds_the_last_hours_failures() -> None:
    page = staff("view_job").get(LIST, {"failures": "1", "since": "1h"}).content.decode()

    assert 'aria-current="true">Last hour&#x27;s failures, retried ones too' in page
    assert "No job matches." in page


@pytest.mark.parametrize(
    ("asked", "query"),
    [("default", "queue=default"), ("probe_add", "actor=probe_add"), ("a = 42", "argument=a%3D42"), ("no", "error=no")],
)
def test_a_search_leads_to_a_filter(asked: str, query: str) -> None:
    assert staff("view_job").get(LIST, {"q": asked})["Location"] == f"{LIST}?{query}"


def test_a_search_for_an_id_leads_to_the_job_wherever_it_is_known() -> None:
    for job_id in (submit(probe_actors.add, kwargs={"a": 1, "b": 2}), job_row().job_id):
        assert staff("view_job").get(LIST, {"q": job_id.upper()})["Location"] == f"{LIST}{job_id}/"


@pytest.mark.parametrize(
    ("query", "text"),
    [({"state": "lost"}, "state: &#x27;lost&#x27; is no state"), ({"colour": "x"}, "colour: is no filter"),
     ({"after": "x"}, "is no place in a list"), ({"since": "soon"}, "is no time")],
)  # fmt: skip
def test_an_address_that_is_wrong_says_what_is(query: dict[str, str], text: str) -> None:
    page = staff("view_job").get(LIST, query)

    assert page.status_code == 400
    assert text in page.content.decode()


def test_arguments_need_the_right_to_view_them() -> None:
    submit(probe_actors.write, kwargs={"text": "nordwind"})

    assert "nordwind" not in staff("view_job").get(LIST).content.decode()
    assert "nordwind" in staff("view_job", "view_arguments").get(LIST).content.decode()
    assert staff("view_job").get(LIST, {"argument": "text=nordwind"}).status_code == 403


def test_what_matches_is_cancelled_from_the_list_after_a_question() -> None:
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    client = staff("view_job", "cancel_job")
    link = "/admin/operations/bulk/begin/job.cancel/?actor=probe_add"

    assert link in client.get(LIST, {"actor": "probe_add"}).content.decode()
    assert client.get(link).status_code == 200
    assert "bulk/begin" not in client.get(LIST).content.decode()
    assert "bulk/begin" not in client.get(LIST, {"state": "dead"}).content.decode()
    assert link not in staff("view_job").get(LIST, {"actor": "probe_add"}).content.decode()


def test_the_page_says_when_no_ended_job_can_be_found_by_an_argument() -> None:
    client = staff("view_job", "view_arguments")

    def note(**query: str) -> str:
        page = client.get(LIST, query)
        shown = str(page.context["none_found"])
        text = html.unescape(page.content.decode())
        assert shown in text and ("Not all are here" in text) == bool(shown)
        return shown

    assert note(argument="dataset=invoices").startswith("no actor lists dataset in search=(")
    assert note(argument="customer_id=42", actor="probe_add").startswith("probe_add does not list customer_id")
    assert note(argument="customer_id=42") == note(argument="thumbnail_id=1") == note(state="dead") == ""


def test_the_page_says_when_ended_jobs_are_not_in_the_history_yet(valkey: redis.Redis, facilities: Facilities) -> None:
    client, keys = staff("view_job"), Keys()
    assert client.get(LIST).context["missing"] == ""

    put_into(valkey, ended_job())
    page = client.get(LIST)
    assert "no history writer leads, start `manage.py switchyard runhistory`" in page.context["missing"]
    assert "Not all are here: those that ended in the last " in page.content.decode()

    valkey.set(keys.lock(HISTORY_WRITER), "writer")
    assert client.get(LIST).context["missing"] == ""
    valkey.delete(keys.queue("default").history)
    valkey.xadd(keys.queue("default").history, {"n": 1, "rows": b""}, id="1-1")
    assert "the history's writer is behind" in client.get(LIST).context["missing"]


def test_hidden_arguments_cannot_be_found_out() -> None:
    submit(probe_actors.keep_secret, kwargs={"to": "mia", "pages": 3})
    client = staff("view_job", "view_arguments", "cancel_job")
    begin = "/admin/operations/bulk/begin/job.cancel/"

    for value in ("mia", "[redacted]"):
        assert client.get(LIST, {"argument": f"to={value}"}).context["page"].lines == ()
        assert client.get(begin, {"argument": f"to={value}"}).context["planned"].total == 0
    assert client.get(begin, {"argument": "pages=3"}).context["planned"].total == 1
    assert staff("view_job", "cancel_job").get(begin, {"argument": "pages=3"}).status_code == 403
