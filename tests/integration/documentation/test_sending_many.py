"""The function of the guide sends a reminder for each invoice, once the transaction has committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dramatiq
import pytest
from django.db import transaction

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from tests.conftest import RunWorker
from tests.integration.documentation.shown import run_block, stand_in
from tests.waiting import wait_for

RemindAll = Callable[[list[int]], list[str]]
reminded: list[int] = []


@pytest.fixture
def remind_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemindAll]:
    """The guide's function, with an actor that notes whom it reminds."""

    def remind(invoice_id: int) -> None:
        reminded.append(invoice_id)

    stand_in(monkeypatch, "apps.invoicing.actors", remind=dramatiq.actor(remind))
    reminded.clear()
    yield run_block("send-many-at-once")["remind_all"]
    del dramatiq.get_broker().actors["remind"]


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_reminders_are_sent_with_the_commit(
    facilities: Facilities, run_worker: RunWorker, remind_all: RemindAll
) -> None:
    invoices = list(range(1_200))  # more than one call to the server
    with transaction.atomic():
        jobs = remind_all(invoices)
        assert find_job(jobs[0]) is None
    with run_worker("default"):
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs[-3:] + jobs[:3]))
        wait_for(lambda: len(reminded) == len(invoices))

    assert sorted(reminded) == invoices
    assert {find_job(id_).state for id_ in jobs} == {"succeeded"}
