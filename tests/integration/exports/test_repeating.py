"""The actor of the exports product may run again after a crash: one file, one row, the same result."""

import pytest

from apps.exports.actors import export_dataset, export_everything
from apps.exports.models import Export
from switchyard.batches.services import Batch
from switchyard.testing import redelivered, run_enqueued
from tests.factories.shop import make_invoice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker", "media")]


def test_the_actor_of_exports_can_be_repeated():
    make_invoice()
    export_dataset.send("invoices", "csv")
    export_dataset.send("customers", "xlsx")

    assert redelivered() == ["export_dataset"]
    assert Export.objects.count() == 2


def test_every_dataset_is_exported_as_one_batch():
    make_invoice()
    sent = export_everything.send("csv")
    done = {attempt.message_id: attempt for attempt in run_enqueued()}

    made = Batch(done[sent.message_id].result["batch"]).progress()
    assert (made.name, made.state, made.done, made.tags) == ("every dataset as csv", "succeeded", 3, ("exports",))
    assert [attempt.result for attempt in done.values() if attempt.actor == "exported_everything"] == [
        {"exported": 3, "failed": 0}
    ]
    assert Export.objects.count() == 3


def test_a_batch_of_exports_that_is_repeated_exports_nothing_twice():
    make_invoice()
    export_everything.send("csv")

    assert sorted(redelivered()) == ["export_dataset", "export_everything"]
    assert Export.objects.count() == 3
