"""The actor of the exports product may run again after a crash: one file, one row, the same result."""

from __future__ import annotations

import pytest

from apps.exports.actors import export_dataset
from apps.exports.models import Export
from switchyard.testing import redelivered
from tests.factories.shop import make_invoice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_the_actor_of_exports_can_be_repeated() -> None:
    make_invoice()
    export_dataset.send("invoices", "csv")
    export_dataset.send("customers", "xlsx")

    assert redelivered() == ["export_dataset"]
    assert Export.objects.count() == 2
