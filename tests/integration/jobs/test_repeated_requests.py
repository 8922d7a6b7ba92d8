"""Jobs of a request that is repeated under its Idempotency-Key: each is enqueued once, whatever was forgotten since."""

import dramatiq
import pytest
from django.db import OperationalError

from switchyard.api.request_jobs import HistoryUnavailable, RequestJobs, request_jobs
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.factories.letters import discard
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def no_outbox(monkeypatch):
    """Leave the database out: a repetition finds its jobs by what the broker and the history know."""
    monkeypatch.setattr(dramatiq.get_broker().postpone, "keeps_rows", False)


def state(job_id: str) -> str:
    job = find_job(job_id)
    return "" if job is None else job.state


def once_more(*, repeated: bool) -> RequestJobs:
    return RequestJobs(has_key=True, claim="one claim", repeated=repeated)


def test_a_repeated_request_finds_its_untracked_job_when_the_broker_has_forgotten_it(valkey, run_worker):
    runs: list[int] = []

    @dramatiq.actor(queue_name="default", actor_name="probe_untracked", track=False)
    def untracked(number: int) -> None:
        runs.append(number)

    with run_worker("default"):
        with request_jobs(once_more(repeated=False)):
            job_id = submit(untracked, kwargs={"number": 1})
        wait_for(lambda: state(job_id) == "succeeded")
        for key in valkey.scan_iter("*done*"):
            valkey.delete(key)

        with request_jobs(once_more(repeated=True)):
            again = submit(untracked, kwargs={"number": 1})

    assert again == job_id
    assert facilities().transport.stats("default").live.waiting == 0
    assert runs == [1]


@pytest.mark.parametrize("ends", ["succeeded", "dead"])
def test_a_repeated_request_sends_nothing_again_when_record_and_history_are_gone(
    transactional_db, valkey, run_worker, ends
):
    runs: list[int] = []

    @dramatiq.actor(queue_name="default", actor_name=f"probe_forgotten_{ends}", track=False, max_retries=0)
    def forgotten(number: int) -> None:
        runs.append(number)
        if ends == "dead":
            raise RuntimeError("no")

    with run_worker("default"):
        with request_jobs(once_more(repeated=False)):
            job_id = submit(forgotten, kwargs={"number": 1})
        wait_for(lambda: any(valkey.hexists(key, job_id) for key in valkey.scan_iter("*job:ended:*")))
        wait_for(lambda: facilities().transport.stats("default").live.running == 0)  # acknowledged
        if ends == "dead":
            discard(facilities().transport, "default", job_id)
        # Drop what the broker drops by itself within 24 hours; no writer has written the history.
        doomed = {key for part in ("*done*", "*job:ended*", "*job:history*") for key in valkey.scan_iter(part)}
        valkey.delete(*doomed)
        assert find_job(job_id) is None

        with request_jobs(once_more(repeated=True)):
            again = submit(forgotten, kwargs={"number": 1})

        assert again == job_id
        assert find_job(job_id) is None, "it was enqueued again"
    assert runs == [1]


def test_a_job_of_no_key_leaves_no_mark(db, valkey, run_worker):
    with run_worker("default"):
        job_id = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
        wait_for(lambda: state(job_id) == "succeeded")

    assert list(valkey.scan_iter("*job:mark:*")) == []


def test_a_job_of_an_unknown_history_is_not_sent_again(valkey, monkeypatch):
    def fail(job_id: str) -> None:
        raise OperationalError("no connection")

    monkeypatch.setattr("switchyard.jobs.services.find", fail)
    jobs = once_more(repeated=True)

    with request_jobs(jobs), pytest.raises(HistoryUnavailable, match="database did not answer whether it ran before"):
        submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    assert facilities().transport.stats("default").live.waiting == 0
    assert jobs.outcome == "unknown"
    assert len(jobs.job_ids) == 1


def test_jobs_of_one_request_have_ids_of_their_own(valkey):
    with request_jobs(once_more(repeated=False)):
        first = [submit(probe_actors.add, kwargs={"a": 1, "b": 2}) for _ in range(3)]
    with request_jobs(once_more(repeated=True)):
        again = [submit(probe_actors.add, kwargs={"a": 1, "b": 2}) for _ in range(3)]

    assert first == again
    assert len(set(first)) == 3
    assert facilities().transport.stats("default").live.waiting == 3


def test_a_failed_enqueue_names_its_job(monkeypatch, valkey):
    def fail(message: object, delay: int | None = None) -> None:
        raise BrokerUnavailable("enqueue", "timeout")

    jobs = once_more(repeated=False)
    monkeypatch.setattr(probe_actors.add.broker, "enqueue", fail)

    with request_jobs(jobs), pytest.raises(BrokerUnavailable):
        submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    assert jobs.outcome == "unknown"
    assert len(jobs.job_ids) == 1
