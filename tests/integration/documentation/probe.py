"""Run inside of a copy of the project into which the tutorial and the README were written; see ``test_tutorial.py``."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from apps.greetings.actors import greet
from apps.loyalty.actors import count_points
from switchyard.api.tokens import create_token
from switchyard.jobs.queries import find_job
from switchyard.middleware.errors import ArgumentMismatch
from tests.conftest import RunWorker
from tests.waiting import wait_for


def test_actor_of_the_readme_greets(valkey: object, run_worker: RunWorker) -> None:
    job_id = greet.send("Ada").message_id

    with run_worker("default"):
        job = wait_for(lambda: (found := find_job(job_id)) and found.ended and found)

    assert job.result == {"greeting": "Hello, Ada!"}


def test_wrong_call_of_the_tutorial_fails_where_it_is_written(valkey: object) -> None:
    with pytest.raises(ArgumentMismatch):
        count_points.send(1)


@pytest.mark.django_db(transaction=True)
def test_unknown_customer_of_the_tutorial_is_dead_at_once(valkey: object, run_worker: RunWorker) -> None:
    job_id = count_points.send(999_999, "2026-10").message_id

    with run_worker("default"):
        job = wait_for(lambda: (found := find_job(job_id)) and found.ended and found)

    assert (job.state, job.reason, job.attempts) == ("dead", "permanent", 1)


@pytest.mark.django_db(transaction=True)
def test_address_of_the_tutorial_takes_a_request_and_refuses_a_wrong_one(valkey: object) -> None:
    user = get_user_model().objects.create_superuser("ada")
    _, token = create_token(owner=user, scopes=["submit", "read"], name="tutorial")
    headers = {"Authorization": f"Bearer {token}"}

    def ask(month: str) -> tuple[int, dict[str, object]]:
        body = {"customer_id": 1, "month": month}
        answer = Client().post("/api/v1/points", body, content_type="application/json", headers=headers)
        return answer.status_code, answer.json()

    assert ask("2026-10")[0] == 202
    status, problem = ask("2026-13")
    assert status == 422
    assert "month" in str(problem["errors"])
