"""Jobs through the API, as CONTRACT has them: one job and the list."""

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from switchyard.broker.interface import facilities
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.factories.web import download
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.unit.api.conftest import problem
from tests.waiting import wait_for

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LIST = "/api/v1/jobs"


def run_to_end(run_worker: RunWorker, api: Client, job_id: str) -> dict[str, Any]:
    """Run a job, and return what the API says of it."""
    with run_worker("default", "default-retry"):
        wait_for(lambda: api.get(f"/api/v1/jobs/{job_id}").json()["finished_at"])
    body: dict[str, Any] = api.get(f"/api/v1/jobs/{job_id}").json()
    return body


def test_a_job_is_shown_from_start_to_end(api, own_job, run_worker):
    queued = api.get(f"/api/v1/jobs/{own_job}").json()
    done = run_to_end(run_worker, api, own_job)

    assert queued == queued | {
        "id": own_job, "actor": "probe_add", "queue": "default", "state": "queued", "reason": None, "attempts": 0,
        "progress": None, "enqueued_at": queued["enqueued_at"], "started_at": None, "finished_at": None,
        "result": None, "result_url": None, "error": None, "next_attempt_at": None,
    }  # fmt: skip
    assert (done["state"], done["result"], done["result_url"]) == ("succeeded", {"sum": 3}, None)
    for name in ("enqueued_at", "started_at", "finished_at"):
        assert TIME.fullmatch(done[name])
    assert done["enqueued_at"] <= done["started_at"] <= done["finished_at"]


def test_a_failed_job_says_why(api, ada, run_worker):
    job_id = submit(probe_actors.fail, owner=f"user:{ada.pk}", kwargs={"reason": "no such thing"})

    done = run_to_end(run_worker, api, job_id)

    assert (done["state"], done["reason"], done["attempts"]) == ("dead", "permanent", 1)
    assert done["error"] == {"type": "PermanentFailure", "message": "no such thing"}


@pytest.mark.parametrize("value", [b"", b"rubbish", b"0" * 20, b"0" * 20 + b"\x91\x01", b"\x91\x01", b"\xff" * 40])
def test_strange_bytes_by_a_message_hide_no_job(api, own_job, valkey, value):
    keys = facilities().records.keys.queue("default")
    for key in (keys.jobs, keys.progress, keys.ended_bucket(1)):
        valkey.hset(key, own_job, value)
    valkey.hset(keys.ended, mapping={"first": 1, "last": 1})

    answer = api.get(f"/api/v1/jobs/{own_job}")

    assert (answer.status_code, answer.json()["state"]) == (200, "queued")


def test_a_job_is_cancelled_and_one_that_ended_is_409(api, own_job):
    response = api.delete(f"/api/v1/jobs/{own_job}")

    assert response.status_code == 202
    assert response.json() == {
        "job_id": own_job,
        "status_url": f"http://testserver/api/v1/jobs/{own_job}",
        "events_url": f"http://testserver/api/v1/jobs/{own_job}/events",
    }
    assert api.get(f"/api/v1/jobs/{own_job}").json()["state"] == "cancelled"
    problem(api.delete(f"/api/v1/jobs/{own_job}"), 409)


def test_reading_needs_the_scope_and_cancelling_another(headers, own_job):
    problem(Client(headers=headers("submit")).get(f"/api/v1/jobs/{own_job}"), 403)
    problem(Client(headers=headers("read")).delete(f"/api/v1/jobs/{own_job}"), 403)
    problem(Client().get(f"/api/v1/jobs/{own_job}"), 401)


def test_a_file_is_downloaded_never_shown_in_a_page_and_404_once_it_was_removed(api, ada, headers, run_worker, media):
    job_id = submit(probe_actors.write, owner=f"user:{ada.pk}", kwargs={"text": "hello\n" * 50_000})
    body = run_to_end(run_worker, api, job_id)

    response, content = download(body["result_url"], headers())

    assert body["result"].keys() == {"filename", "content_type", "size_bytes", "sha256", "lines"}
    assert content == b"hello\n" * 50_000
    assert (response["Content-Type"], response["Content-Length"]) == ("text/plain", str(len(content)))
    assert response["Content-Disposition"] == 'attachment; filename="hello.txt"'
    assert response["X-Content-Type-Options"] == "nosniff"
    next(path for path in media.rglob("*") if path.is_file()).unlink()
    problem(download(f"/api/v1/jobs/{job_id}/result", headers())[0], 404)


def test_a_job_without_a_file_is_404_once_it_ended_and_409_before(api, own_job, headers, run_worker):
    problem(download(f"/api/v1/jobs/{own_job}/result", headers())[0], 409)
    run_to_end(run_worker, api, own_job)
    problem(download(f"/api/v1/jobs/{own_job}/result", headers())[0], 404)


@pytest.fixture
def operator(headers, ada):
    return Client(headers=headers("operate"))


def ids(client: Client, **query: str) -> list[str]:
    answer = client.get(LIST, query)
    assert answer.status_code == 200, answer.content
    return [job["id"] for job in answer.json()["jobs"]]


def test_a_token_lists_the_jobs_of_its_owner_alone(api, ada, operator):
    mine = submit(probe_actors.add, owner=f"user:{ada.pk}", kwargs={"a": 1, "b": 2})
    ended = job_row(owner=f"user:{ada.pk}").job_id
    others = [submit(probe_actors.add, owner="user:999", kwargs={"a": 1, "b": 2}), job_row().job_id]

    assert set(ids(api)) == {mine, ended}
    assert set(ids(operator)) == {mine, ended, *others}
    assert ids(operator, owner="user:999") == others[:1]
    assert api.get(LIST, {"owner": "user:999"}).status_code == 403


def test_the_list_goes_on_after_its_cursor(operator):
    rows = {job_row().job_id for _ in range(3)}

    first = operator.get(LIST, {"limit": "2"}).json()
    second = operator.get(LIST, {"limit": "2", "after": first["after"]}).json()

    assert {job["id"] for job in [*first["jobs"], *second["jobs"]]} == rows
    assert second["after"] is None and first["cut"] == []


@pytest.mark.parametrize(
    "query",
    [
        *({"state": "lost"}, {"colour": "x"}, {"limit": "0"}, {"limit": "x"}, {"limit": "00000000199999"}),
        *({"after": "x"}, {"ran": "long"}, {"since": "soon"}),
    ],
)
def test_a_query_that_is_unusable_is_refused(operator, query):
    answer = operator.get(LIST, query)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(next(iter(query)))


def test_arguments_need_the_operators_scope_and_the_owners_right(operator, api, ada):
    submit(probe_actors.add, owner=f"user:{ada.pk}", kwargs={"a": 42, "b": 2})

    assert operator.get(LIST).json()["jobs"][0]["arguments"] is None
    assert operator.get(LIST, {"argument": "a=42"}).status_code == 403

    ada.user_permissions.add(Permission.objects.get(codename="view_arguments"))
    assert operator.get(LIST).json()["jobs"][0]["arguments"] == {"a": 42, "b": 2}
    assert len(ids(operator, argument="a=42")) == 1
    assert api.get(LIST).json()["jobs"][0]["arguments"] is None


def test_a_job_that_has_left_the_broker_is_answered_from_the_history(api, ada, operator):
    row = job_row(owner=f"user:{ada.pk}", result=json.dumps({"sum": 3}))
    other = job_row(owner="user:999", state="dead", reason="exhausted", error_type="ValueError", error_message="no")
    waits = job_row(owner=f"user:{ada.pk}", state="retrying")

    body = api.get(f"{LIST}/{row.job_id}").json()

    assert (body["id"], body["state"], body["result"], body["attempts"]) == (row.job_id, "succeeded", {"sum": 3}, 1)
    assert api.get(f"{LIST}/{other.job_id}").status_code == 404
    assert operator.get(f"{LIST}/{other.job_id}").json()["error"] == {"type": "ValueError", "message": "no"}
    assert api.get(f"{LIST}/{waits.job_id}").status_code == 404
    assert api.delete(f"{LIST}/{other.job_id}").status_code == 404
