"""Well-behaved actors, which write a row each, and the misbehaving ones. ``CHAOS_LEDGER`` names the ledger."""

import contextlib
import decimal
import os
import sys
from collections.abc import Iterator
from typing import Any

import dramatiq
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.utils import timezone, translation

from tests.chaos.ledger import Ledger
from tests.chaos.soak_yard import BAD, KINDS
from tests.chaos.soak_yard.misbehaving import MISBEHAVING, VARIABLE


def surroundings() -> tuple[Any, ...]:
    """Return state of the thread that a job may rely on."""
    language, zone = translation.get_language(), timezone.get_current_timezone_name()
    return language, zone, decimal.getcontext().prec, VARIABLE.get(), sys.gettrace()


USUAL = surroundings()


def note(phase: str, run_of: str) -> None:
    """Note in the ledger, opened each time: a misbehaving neighbour may have closed each descriptor of the process."""
    with contextlib.closing(Ledger(os.environ["CHAOS_LEDGER"])) as ledger:
        ledger.note(phase, run_of)


@contextlib.contextmanager
def run_noted(job: str) -> Iterator[None]:
    """Note how a run of a job ends: what a child logs of it, a misbehaving neighbour may have silenced."""
    run_of = f"{job}@{os.getppid()}"
    note("started", run_of)
    try:
        yield
    except BaseException:
        note("failed", run_of)
        raise
    note("completed", run_of)


def write(job: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO chaos_row (job, process) VALUES (%s, %s)", [job, os.getpid()])


def good(job: str, fails_once: bool = False) -> None:
    with run_noted(job):
        if fails_once and not dramatiq.middleware.CurrentMessage.get_current_message().options.get("attempts"):
            raise RuntimeError("as it was told to")
        assert surroundings() == USUAL, surroundings()
        write(job)


@dramatiq.actor(queue_name="threads")
async def async_good(job: str) -> None:
    with run_noted(job):
        await sync_to_async(write)(job)


for kind in KINDS:
    dramatiq.actor(good, actor_name=f"{kind}_good", queue_name=kind)

for entry in MISBEHAVING:
    for kind in entry.kinds:
        dramatiq.actor(entry.act, actor_name=f"{kind}_{entry.name}", queue_name=f"{kind}{BAD}")
