"""The actor of the retention may run again after a crash: what is old goes once, and the figures are the same."""

from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import override_settings
from django.utils import timezone

from apps.exports.models import Export
from apps.retention.actors import apply_retention
from apps.retention.models import KindState
from switchyard.broker.clock import now_ms
from switchyard.testing import redelivered

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


def test_the_actor_of_the_retention_can_be_repeated():
    for job_id, days in (("old", 31), ("young", 1)):
        Export.objects.create(
            job_id=job_id,
            dataset="invoices",
            format="csv",
            row_count=1,
            file=default_storage.save(f"exports/{job_id}.csv", ContentFile(b"a")),
            size_bytes=1,
            created_at=timezone.now() - timedelta(days=days),
        )
    names = {row.job_id: row.file for row in Export.objects.all()}
    apply_retention.send(run=now_ms())

    with override_settings(RETENTION_DAYS={"exports": 30}):
        assert redelivered() == ["apply_retention"]

    assert [row.job_id for row in Export.objects.all()] == ["young"]
    assert not default_storage.exists(names["old"]) and default_storage.exists(names["young"])
    assert KindState.objects.get(name="exports").count == 1
