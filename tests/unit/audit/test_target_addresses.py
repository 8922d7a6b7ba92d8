import pytest

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import target_url


@pytest.mark.parametrize(
    ("act", "target", "detail", "address"),
    [
        ("queue.pause", "default", {}, "/admin/operations/queues/default/"),
        ("job.cancel", "0f8f", {}, "/admin/switchyard_jobs/job/0f8f/"),
        ("letter.edit", "0f8f", {}, "/admin/switchyard_jobs/job/0f8f/"),
        (
            "letter.requeue",
            "beef",
            {"group": "beef"},
            "/admin/switchyard_dead_letters/deadletter/?fingerprint=beef&state=all",
        ),
        ("letter.discard", "bulk act 7", {}, "/admin/operations/bulk/7/"),
        ("bulk.stop", "bulk act 7", {}, "/admin/operations/bulk/7/"),
        ("settings.change", "x", {}, ""),
    ],
)
def test_what_an_act_names_is_a_link(act, target, detail, address):
    assert target_url(AuditEntry(act=act, target=target, detail=detail)) == address
