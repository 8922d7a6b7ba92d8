"""The code of the how-to on sending with the transaction: invoice and reminder, or neither."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from tests.integration.documentation.shown import blocks, run_block, stand_in
from tests.integration.outbox.conftest import MakeBroker, actor_on, make_broker, waiting

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
