"""Jobs that keep no record are cancelled through API, command and admin: queued, scheduled and running."""

import threading
import time

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import request_cancel, submit
from tests.factories.callers import api_user
from tests.factories.commands import output_of
from tests.factories.staff import staff
from tests.unit.api.conftest import problem
from tests.waiting import wait_for

runs = threading.Event()
ended: list[str] = []


@pytest.fixture
def actor(transactional_db):
    """An actor without records that runs until it is interrupted."""
    runs.clear()
    ended.clear()

    @dramatiq.actor(queue_name="default", actor_name="probe_untracked_endless", track=False)
    def endless() -> None:
        runs.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.append("ended")

    return endless


def by_api(job_id, ada, headers):
    assert Client(headers=headers()).delete(f"/api/v1/jobs/{job_id}").status_code == 202


def by_operator(job_id, ada, headers):
    operator = api_user("op")
    assert Client(headers=headers("operate", user=operator)).delete(f"/api/v1/jobs/{job_id}").status_code == 202


def by_command(job_id, ada, headers):
    with pytest.raises(CommandError, match=r"probe_untracked_endless on default keeps no record \(track=False\)"):
        call_command("switchyard", "jobs", "show", job_id)
    said = output_of("jobs", "cancel", job_id)
    assert "cancelled" in said or "runs and stops" in said


def in_the_room(job_id, ada, headers):
    client = staff("view_job", "cancel_job", name="staff")
    page = client.get(reverse("switchyard-jobs"), {"id": job_id}).content.decode()
    address = reverse("switchyard-job-cancel", args=[job_id])
    assert "keeps no record" in page
    assert address in page
    assert client.post(address).status_code == 302


WAYS = [by_api, by_operator, by_command, in_the_room]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("delay_ms", [None, 3_600_000], ids=["queued", "scheduled"])
def test_an_untracked_job_that_has_not_started_is_cancelled(actor, ada, headers, run_worker, way, delay_ms):
    job_id = submit(actor, owner=f"user:{ada.pk}", delay_ms=delay_ms, kwargs={})

    way(job_id, ada, headers)

    with run_worker("default"):
        wait_for(lambda: not facilities().transport.find_message("default", job_id))
    assert not runs.is_set()
    assert find_job(job_id) is None
    assert request_cancel(job_id) in ("cancelled", "unknown")


@pytest.mark.parametrize("way", WAYS)
def test_an_untracked_job_that_runs_is_stopped(actor, ada, headers, run_worker, way):
    with run_worker("default"):
        job_id = submit(actor, owner=f"user:{ada.pk}", kwargs={})
        assert runs.wait(30)
        way(job_id, ada, headers)
        wait_for(lambda: ended)
        wait_for(lambda: not facilities().transport.find_message("default", job_id))

    assert ended == ["ended"]
    assert facilities().transport.stats("default").dead == 0


def test_another_owners_untracked_job_is_404_and_goes_on(actor, ada, headers):
    job_id = submit(actor, owner="user:other", kwargs={})

    problem(Client(headers=headers()).delete(f"/api/v1/jobs/{job_id}"), 404)

    assert facilities().transport.stats("default").live.waiting == 1


def test_of_an_untracked_job_that_ended_nothing_is_known(actor, ada):
    job_id = submit(actor, kwargs={})
    dramatiq.get_broker().flush("default")

    assert find_job(job_id) is None
    with pytest.raises(CommandError, match="those sent with track=False not at all"):
        call_command("switchyard", "jobs", "cancel", job_id)
