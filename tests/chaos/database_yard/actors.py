"""Actors that write a row, and one that needs no database. ``CHAOS_LEDGER`` names the ledger."""

import os
import threading
from typing import Any

import dramatiq
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from switchyard.middleware.errors import PermanentFailure
from tests.chaos.database_yard import KINDS, PLAIN
from tests.chaos.ledger import Ledger

LEDGER = Ledger(os.environ["CHAOS_LEDGER"])


def write(job: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO chaos_row (job, process) VALUES (%s, %s)", [job, os.getpid()])


def work(job: str, ms: int = 0) -> None:
    LEDGER.note("started", job)
    threading.Event().wait(ms / 1000)
    write(job)
    LEDGER.note("completed", job)


for kind in KINDS:
    dramatiq.actor(work, actor_name=f"{kind}_row", queue_name=kind)


@dramatiq.actor(queue_name=PLAIN)
def plain_job(job: str, ms: int = 0) -> None:
    LEDGER.note("started", job)
    LEDGER.note("completed", job)


@dramatiq.actor(queue_name="threads")
async def async_row(job: str, ms: int = 0) -> None:
    LEDGER.note("started", job)
    await sync_to_async(write)(job)
    LEDGER.note("completed", job)


@dramatiq.actor(queue_name="threads")
def gives_up(job: str, ms: int = 0) -> Any:
    """Lose the connection after its last use, and give up: the dead letter's row needs another one."""
    LEDGER.note("started", job)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        own = cursor.fetchone()
    write(f"{job}:{own[0]}")
    LEDGER.note("completed", job)
    wait_until_gone(own[0])
    raise PermanentFailure("given up on purpose")


def wait_until_gone(pid: int) -> None:
    for _ in range(1_000):
        if not os.path.exists(f"/proc/{pid}"):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"connection {pid} was not cut")
