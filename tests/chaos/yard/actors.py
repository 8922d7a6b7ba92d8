"""The job of :mod:`tests.chaos.load`, in a process of its own, and one that writes a row once.

``CHAOS_LEDGER`` names the ledger.
"""

import os

import dramatiq
from django.conf import settings
from django.db import connection

from switchyard.jobs.once import once
from tests.chaos.ledger import Ledger
from tests.chaos.linked_jobs import declare_batch_jobs, declare_group_jobs, declare_limited_jobs
from tests.chaos.load import QUEUE, declare_job

LEDGER = Ledger(os.environ["CHAOS_LEDGER"])

for queue in settings.SWITCHYARD.topology.queues:
    declare_job(dramatiq.get_broker(), LEDGER, queue.name)

declare_group_jobs(dramatiq.get_broker(), LEDGER)
if os.environ.get("CHAOS_YARD") == "batches":
    declare_batch_jobs(dramatiq.get_broker(), LEDGER, (QUEUE, "brief"), "aside")
declare_limited_jobs(dramatiq.get_broker(), LEDGER)


@dramatiq.actor(queue_name=QUEUE)
def once_row(job: str) -> None:
    LEDGER.note("started", job)
    with once() as first:
        if first:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO chaos_row (job) VALUES (%s)", [job])
    LEDGER.note("completed", job)
