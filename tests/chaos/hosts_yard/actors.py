"""Actors of both hosts, and one of a newer release. ``CHAOS_LEDGER`` names the host's own ledger."""

import os

import dramatiq
from dramatiq.middleware import CurrentMessage
from periodiq import cron

from tests.chaos.hosts_yard import PACED, PACED_PER_S, TICKS
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, declare_job

LEDGER = Ledger(os.environ["CHAOS_LEDGER"])

declare_job(dramatiq.get_broker(), LEDGER, QUEUE)


@dramatiq.actor(queue_name=PACED, rate_limit=f"{PACED_PER_S}/s")
def paced_job(job: str, ms: int = 0, how: str = "sleep") -> None:
    LEDGER.note("started", job)
    LEDGER.note("completed", job)


@dramatiq.actor(queue_name=TICKS, periodic=cron("* * * * *"))
def tick() -> None:
    message = CurrentMessage.get_current_message()
    LEDGER.note("started", message.message_id)
    LEDGER.note("completed", message.message_id)


if os.environ.get("CHAOS_RELEASE") == "new":

    @dramatiq.actor(queue_name=QUEUE)
    def new_job(job: str, ms: int = 0, how: str = "sleep") -> None:
        LEDGER.note("started", job)
        LEDGER.note("completed", job)
