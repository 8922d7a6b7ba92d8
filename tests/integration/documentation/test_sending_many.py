"""The function of the guide sends a reminder for each invoice, once the transaction has committed."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from tests.conftest import RunWorker
from tests.integration.documentation.shown import blocks, run_block, stand_in
from tests.integration.outbox.conftest import MakeBroker, actor_on, make_broker, waiting
from tests.waiting import wait_for

RemindAll = Callable[[list[int]], list[str]]
reminded: list[int] = []


@pytest.fixture
def remind_all(monkeypatch: pytest.MonkeyPatch) -> RemindAll:
    """The guide's function, with an actor that notes whom it reminds."""

    def remind(invoice_id: int) -> None:
        reminded.append(invoice_id)

    stand_in(monkeypatch, "apps.invoicing.actors", remind=dramatiq.actor(remind))
    reminded.clear()
    return run_block("send-many-at-once")["remind_all"]


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


__all__ = ["make_broker"]


class Invoice:
    """A model as the page has it, whose rows are groups."""

    class objects:
        @staticmethod
        def create(customer_id: int) -> Group:
            return Group.objects.create(name=f"invoice of {customer_id}")


def test_the_reminder_is_sent_with_its_invoice(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    remind = actor_on(make_broker("outbox"), "remind")
    stand_in(monkeypatch, "apps.invoicing.actors", remind=remind)
    stand_in(monkeypatch, "apps.invoicing.models", Invoice=Invoice)
    names = run_block("send-with-the-transaction", 1)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        names["bill"](1)
        1 / 0  # noqa: B018
    invoice = names["bill"](2)

    assert blocks("send-with-the-transaction")[0].strip() == 'SWITCHYARD = {"SENDS": "outbox"}'
    assert waiting(remind.broker) == [invoice.pk]
