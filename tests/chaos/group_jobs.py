"""Actors that note what they do: jobs with a result, the callback of a group of them, a job that is aborted."""

from __future__ import annotations

import dramatiq
from dramatiq import Actor, group
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq_abort import Abort

from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE
from tests.ways import WAYS

CALLBACK = "callback-of-"


def declare_group_jobs(broker: Broker, ledger: Ledger) -> tuple[Actor[..., str], Actor[..., None]]:
    """Return the actor of jobs, whose result is their name, and that of callbacks."""

    @dramatiq.actor(broker=broker, queue_name=QUEUE, store_results=True)
    def group_job(job: str, ms: int = 0) -> str:
        WAYS["sleep"](ms / 1000)
        ledger.note("completed", job)
        return job

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def aborted_job(job: str) -> None:
        ledger.note("started", job)
        try:
            WAYS["sleep"](60)
        except Abort:
            ledger.note("completed", job)
            raise

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def group_done(name: str) -> None:
        ledger.note("completed", f"{CALLBACK}{name}")

    return group_job, group_done


def called(ledger: Ledger) -> list[str]:
    """Return the groups whose callbacks ran, each as often as it did."""
    return [job.removeprefix(CALLBACK) for job in ledger.jobs("completed") if job.startswith(CALLBACK)]


def run_group(broker: Broker, name: str, jobs: int, ms: int = 0) -> group:
    """Run a group of jobs with one callback, which is named as the group."""
    messages = [Message(QUEUE, "group_job", (f"{name}-{number}", ms), {}, {}) for number in range(jobs)]
    started = group(messages, broker=broker)
    started.add_completion_callback(Message(QUEUE, "group_done", (name,), {}, {}))
    return started.run()
