"""The list of jobs follows what it shows: rows as they stand, and jobs that came since."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.clock import now_ms
from switchyard.history.filters import Filter
from switchyard.jobs.listing import views
from switchyard.jobs.listing.views import fresh_page
from switchyard.jobs.services import request_cancel, submit
from tests.factories.brokers import broker_without_server
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

LIST = reverse("switchyard-jobs")
LIVE = f"{LIST}live/"


@pytest.fixture(autouse=True)
def fresh(transactional_db, monkeypatch):
    """Every answer reads the list anew."""
    monkeypatch.setattr(views, "LEAST_AGE_S", 0.0)
    monkeypatch.setattr(views, "AGE_PER_COST", 0)


def part_of(client: Client, page: str) -> str:
    """Return the part that the script of a page fetches."""
    address = re.search(r'id="sy-jobs" data-live="([^"]+)"', page)
    answer = client.get(address[1].replace("&amp;", "&"))
    assert answer.status_code == 200
    return answer.content.decode()


def add() -> str:
    return submit(probe_actors.add, kwargs={"a": 1, "b": 2})


def states(part: str) -> list[tuple[str, str]]:
    """Return id and state of each row."""
    return re.findall(r'<tr data-job="([^"]+)">\s*<td data-label="State"><span [^>]*>(\w+)<', part)


def test_rows_change_where_they_stand_and_new_jobs_are_only_counted():
    first, second = add(), add()
    client = staff("view_job")
    page = client.get(LIST).content.decode()

    request_cancel(first)
    came = [add() for _ in range(3)]
    part = part_of(client, page)

    assert set(states(part)) == {(second, "queued"), (first, "cancelled")}  # of one millisecond, in any order
    assert 'data-new="3"' in part and "data-more" not in part and "data-away" not in part
    assert not any(job_id in part for job_id in came)
    assert not re.search(r"<(script|style|html)|\s(style|on\w+)=", part)


def test_a_row_is_followed_from_the_broker_into_the_history(run_worker):
    job_id = submit(probe_actors.steps, kwargs={"total": 3})
    client = staff("view_job")
    page = client.get(LIST, {"state": "queued"}).content.decode()

    with run_worker("default"):
        wait_for(lambda: "1 of 3" in part_of(client, page))
        running = states(part_of(client, page))
        probe_actors.go_on.set()
        wait_for(lambda: states(part_of(client, page)) == [(job_id, "succeeded")])
    job_row(job_id=job_id, wait_ms=77_000)

    assert running == [(job_id, "running")]
    assert "1 min 17 s" in part_of(client, page)


def test_jobs_that_are_pushed_off_the_first_page_keep_their_rows():
    old = add()
    client = staff("view_job")
    page = client.get(LIST).content.decode()

    for _ in range(51):
        job_row(finished_at=now_ms())
    part = part_of(client, page)

    assert states(part) == [(old, "queued")]
    assert 'data-new="50" data-more' in part


def test_a_page_is_read_once_for_all_who_look_at_it(monkeypatch):
    monkeypatch.setattr(views, "LEAST_AGE_S", 60.0)
    wanted = Filter(actor="probe_add")
    first = fresh_page(wanted)
    add()

    again, other = fresh_page(wanted), fresh_page(Filter(queue="default"))

    assert again is first
    assert [len(page.jobs) for page in (first, other)] == [0, 1]


def test_a_part_says_that_the_broker_is_away():
    row = job_row()
    with broker_without_server():
        part = staff("view_job").get(LIVE, {"shown_at": str(now_ms()), "shown": row.job_id}).content.decode()

    assert "data-away" in part
    assert states(part) == [(row.job_id, "succeeded")]
