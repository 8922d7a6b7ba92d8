"""The code of the how-to on sending with the transaction: invoice and reminder, or neither."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from tests.integration.outbox.conftest import MakeBroker, actor_on, make_broker, waiting
from tests.unit.documentation.pages import code_blocks, read

__all__ = ["make_broker"]


class Invoice:
    """A model as the page has it, whose rows are groups."""

    class objects:
        @staticmethod
        def create(customer_id: int) -> Group:
            return Group.objects.create(name=f"invoice of {customer_id}")


def test_the_reminder_is_sent_with_its_invoice(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    remind = actor_on(make_broker("outbox"), "remind")
    for name, content in {"actors": {"remind": remind}, "models": {"Invoice": Invoice}}.items():
        module = ModuleType(f"apps.invoicing.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "apps.invoicing", ModuleType("apps.invoicing"))
    names: dict[str, Any] = {}
    setting, code = code_blocks(read("docs/how-to/send-with-the-transaction.md"), "python")
    exec(compile(code, "send-with-the-transaction.md", "exec"), names)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        names["bill"](1)
        1 / 0  # noqa: B018
    invoice = names["bill"](2)

    assert setting.strip() == 'SWITCHYARD = {"SENDS": "outbox"}'
    assert waiting(remind.broker) == [invoice.pk]
