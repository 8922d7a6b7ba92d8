"""The page of a job follows it: its events for the session of a user, and the part of it that changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import urllib3
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from switchyard.broker.errors import BrokerUnavailable
from switchyard.jobs import live
from switchyard.jobs.passport import views
from switchyard.jobs.services import request_cancel, submit
from tests.conftest import RunWorker
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.integration.jobs.conftest import MakeHeaders
from tests.integration.jobs.followers import Follower, open_streams
from tests.waiting import wait_for

UNKNOWN = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
Headers = dict[str, str]


@pytest.fixture
def job_id(transactional_db: None) -> str:
    return submit(probe_actors.steps, kwargs={"total": 3})


def session(*permissions: str) -> Headers:
    """Return the headers of such a user's session."""
    return {"Cookie": f"sessionid={staff(*permissions).cookies['sessionid'].value}"}


def address(job_id: str, *, part: str = "events") -> str:
    return reverse(f"switchyard-job-{part}", args=[job_id])


def test_a_page_follows_a_job_to_its_end(web: str, job_id: str, run_worker: RunWorker) -> None:
    follower = Follower(web + address(job_id), session("view_job"))

    wait_for(lambda: follower.events)
    with run_worker("default"):
        wait_for(lambda: "progress" in follower.names())
        probe_actors.go_on.set()
        assert follower.ended()

    assert (follower.status, follower.answer["content-type"]) == (200, "text/event-stream")
    assert follower.answer["cache-control"] == "no-store"
    states = [event["data"]["state"] for event in follower.events if event["event"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert [event["data"]["done"] for event in follower.events if event["event"] == "progress"] == [1, 2, 3]
    assert follower.names()[-1] == "end"
    wait_for(lambda: open_streams() == 0)


def test_a_stream_needs_a_session_the_right_and_a_job(web: str, job_id: str) -> None:
    cases: list[tuple[str, Headers, int]] = [
        (job_id, {}, 302),
        (job_id, session("cancel_job"), 403),
        (UNKNOWN, session("view_job"), 404),
    ]

    for asked, headers, status in cases:
        refused = Follower(web + address(asked), headers)

        assert refused.ended()
        assert refused.status == status
    assert open_streams() == 0
    assert staff("view_job").post(address(job_id)).status_code == 405


def sites_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin.site, "has_permission", lambda request: False)


@pytest.mark.parametrize(
    "lose",
    [
        sites_refusal,
        lambda _: User.objects.update(is_staff=False),
        lambda _: User.objects.update(is_active=False),
        lambda _: Permission.objects.get(codename="view_job").user_set.clear(),
    ],
    ids=["second factor", "staff", "account", "right"],
)
def test_a_stream_ends_when_its_user_may_not_see_the_room_any_more(
    web: str, job_id: str, monkeypatch: pytest.MonkeyPatch, lose: Callable[[pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)
    follower = Follower(web + address(job_id), session("view_job"))
    wait_for(lambda: len(follower.comments) >= 3)
    went_on = not follower.closed

    lose(monkeypatch)

    wait_for(lambda: follower.closed)
    assert went_on and "end" not in follower.names()


def test_a_user_and_a_process_have_so_many_streams(
    web: str, job_id: str, headers: MakeHeaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STREAMS_PER_CALLER", 2)
    monkeypatch.setattr(live, "STREAMS_PER_PROCESS", 4)
    mia, bo = session("view_job"), session("view_job")
    followers = [Follower(web + address(job_id), mia) for _ in range(2)]
    wait_for(lambda: open_streams() == 2)

    third = Follower(web + address(job_id), mia)

    assert third.ended()
    assert (third.status, third.answer["retry-after"]) == (429, "15")
    followers.append(Follower(web + address(job_id), bo))
    operator = headers("submit", "read", "operate", user=User.objects.create_superuser("operator"))
    followers.append(Follower(f"{web}/api/v1/jobs/{job_id}/events", operator))
    wait_for(lambda: open_streams() == 4)
    fifth = Follower(web + address(job_id), bo)
    assert fifth.ended()
    assert (fifth.status, fifth.answer["retry-after"]) == (503, "15")
    request_cancel(job_id)
    assert all(follower.ended() for follower in followers)
    wait_for(lambda: open_streams() == 0)


def test_under_wsgi_a_page_polls_and_its_stream_is_refused_at_once(web: str, job_id: str) -> None:
    client = staff("view_job")  # Django's test client runs under WSGI
    cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    page_url = reverse("switchyard-job", args=[job_id])

    refused, page = client.get(address(job_id)), client.get(page_url).content.decode()
    under_asgi = urllib3.request("GET", web + page_url, headers=cookie).data.decode()

    assert refused.status_code == 501
    assert open_streams() == 0
    assert "data-events" not in page
    assert f'data-live="{address(job_id, part="live")}"' in page
    assert f'data-events="{address(job_id)}"' in under_asgi


@pytest.mark.parametrize("part", ["live", "events"])
def test_a_part_of_a_job_that_is_not_found_says_so(
    web: str, job_id: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = session("view_job")

    def away(job_id: str) -> None:
        raise BrokerUnavailable("HMGET", "a test")

    def status(job_id: str) -> int:
        url = web + address(job_id, part=part)
        return urllib3.request("GET", url, headers=reader, timeout=30, retries=False).status

    found = [status(UNKNOWN)]
    monkeypatch.setattr(views, "passport_of", away)
    monkeypatch.setattr(views, "find_known", away)

    assert [*found, status(job_id)] == [404, 503]
