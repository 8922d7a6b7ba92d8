"""``GET /api/v1/jobs``: whose jobs a token lists, and a job that has left the broker."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from switchyard.jobs.services import submit
from tests.integration.jobs import probe_actors
from tests.integration.jobs.conftest import MakeHeaders
from tests.integration.jobs.history_rows import job_row

LIST = "/api/v1/jobs"


@pytest.fixture
def operator(headers: MakeHeaders, ada: User) -> Client:
    return Client(headers=headers("operate"))


def ids(client: Client, **query: str) -> list[str]:
    answer = client.get(LIST, query)
    assert answer.status_code == 200, answer.content
    return [job["id"] for job in answer.json()["jobs"]]


def test_a_token_lists_the_jobs_of_its_owner_alone(api: Client, ada: User, operator: Client) -> None:
    mine = submit(probe_actors.add, owner=f"user:{ada.pk}", kwargs={"a": 1, "b": 2})
    ended = job_row(owner=f"user:{ada.pk}").job_id
    others = [submit(probe_actors.add, owner="user:999", kwargs={"a": 1, "b": 2}), job_row().job_id]

    assert set(ids(api)) == {mine, ended}
    assert set(ids(operator)) == {mine, ended, *others}
    assert ids(operator, owner="user:999") == others[:1]
    assert api.get(LIST, {"owner": "user:999"}).status_code == 403


def test_the_list_goes_on_after_its_cursor(operator: Client) -> None:
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
def test_a_query_that_is_unusable_is_refused(operator: Client, query: dict[str, str]) -> None:
    answer = operator.get(LIST, query)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(next(iter(query)))


def test_arguments_need_the_operators_scope_and_the_owners_right(operator: Client, api: Client, ada: User) -> None:
    submit(probe_actors.add, owner=f"user:{ada.pk}", kwargs={"a": 42, "b": 2})

    assert operator.get(LIST).json()["jobs"][0]["arguments"] is None
    assert operator.get(LIST, {"argument": "a=42"}).status_code == 403

    ada.user_permissions.add(Permission.objects.get(codename="view_arguments"))
    assert operator.get(LIST).json()["jobs"][0]["arguments"] == {"a": 42, "b": 2}
    assert len(ids(operator, argument="a=42")) == 1
    assert api.get(LIST).json()["jobs"][0]["arguments"] is None


def test_a_job_that_has_left_the_broker_is_answered_from_the_history(api: Client, ada: User, operator: Client) -> None:
    row = job_row(owner=f"user:{ada.pk}", result=json.dumps({"sum": 3}))
    other = job_row(owner="user:999", state="dead", reason="exhausted", error_type="ValueError", error_message="no")
    waits = job_row(owner=f"user:{ada.pk}", state="retrying")

    body = api.get(f"{LIST}/{row.job_id}").json()

    assert (body["id"], body["state"], body["result"], body["attempts"]) == (row.job_id, "succeeded", {"sum": 3}, 1)
    assert api.get(f"{LIST}/{other.job_id}").status_code == 404
    assert operator.get(f"{LIST}/{other.job_id}").json()["error"] == {"type": "ValueError", "message": "no"}
    assert api.get(f"{LIST}/{waits.job_id}").status_code == 404
    assert api.delete(f"{LIST}/{other.job_id}").status_code == 404
