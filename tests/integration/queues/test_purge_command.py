"""``manage.py switchyard queues purge``, its undo, and the scheduler that drops what was set aside."""

from __future__ import annotations

import dramatiq
import pytest
from django.core.management import CommandError

from switchyard.audit.models import AuditEntry
from switchyard.broker.admin import purge
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.history_streams import decode_rows
from switchyard.schedules.runner import finish_moves
from tests.factories.commands import json_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def family(facilities: Facilities) -> QueueOperations:
    """Five messages wait in ``default``, and one is scheduled in its retry lane."""
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    family.enqueue([Entry(f"m{number}", b"{}") for number in range(5)])
    family.enqueue([Entry("retry", b"{}")], lane="retry", delay_ms=60_000)
    return family


def test_without_yes_it_only_counts(family: QueueOperations) -> None:
    with pytest.raises(CommandError, match="would drop 6 messages of default; write --yes"):
        json_of("queues", "purge", "default")

    assert purge.purges(family) == [] and not AuditEntry.objects.exists()


def test_it_is_undone_within_a_minute(family: QueueOperations) -> None:
    told = json_of("queues", "purge", "default", "--yes", "--reason", "sent twice")

    assert (told["queue"], told["purged"]) == ("default", 6)
    assert finish_moves() == 0, "there is time to undo it"
    family.enqueue([Entry("m2", b"{}")])
    undone = {"queue": "default", "put_back": 5, "left_out": 1, "purges": [told["purge"]]}
    assert json_of("queues", "purge", "default", "--undo") == undone
    assert [queue["depth"] for queue in json_of("queues") if queue["queue"] == "default"] == [5]
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")
    acts = [(entry.act, entry.count, entry.reason) for entry in AuditEntry.objects.order_by("id")]
    assert acts == [("queue.purge", 6, "sent twice"), ("queue.purge_undo", 5, "")]
    assert AuditEntry.objects.get(act="queue.purge_undo").detail == {"purge": told["purge"], "left_out": 1}


def test_the_scheduler_drops_it_after_the_minute(family: QueueOperations, monkeypatch: pytest.MonkeyPatch) -> None:
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert finish_moves() == 6
    assert purge.purges(family) == []
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")


def test_the_scheduler_ends_an_undo_that_was_killed(family: QueueOperations) -> None:
    purge.set_aside(family, "p", by="me")
    family.calls.call(script("claim_purge"), [family.keys.purges], ["p", "undo"])

    assert finish_moves() == 6
    assert family.calls.client.hlen(family.keys.bodies) == 6


def test_the_jobs_of_dropped_messages_are_cancelled_in_records_and_history(facilities: Facilities) -> None:
    @dramatiq.actor(actor_name="is_purged", queue_name="default")
    def is_purged() -> None:
        raise AssertionError("nothing runs here")

    try:
        job_id = is_purged.send().message_id
    finally:
        del dramatiq.get_broker().actors["is_purged"]
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert finish_moves() == 1

    record = facilities.records.read(job_id)
    assert record is not None
    assert (record.state, record.reason, record.actor, record.queue) == ("cancelled", "purged", "is_purged", "default")
    [entry] = family.calls.client.xrange(family.keys.history)
    [row] = decode_rows(entry[1][b"rows"])
    assert (row.id, row.state, row.reason, row.lane) == (job_id, "cancelled", "purged", "default")


def test_a_queue_whose_purges_cannot_be_read_does_not_hold_up_the_others(
    family: QueueOperations, facilities: Facilities
) -> None:
    others = [dramatiq.get_broker().lane(name)[0] for name in facilities.records.queues]  # type: ignore[attr-defined]
    for other in others:
        other.enqueue([Entry("m", b"{}")])
        purge.set_aside(other, "p", by="me", undo_ms=0)
    family.calls.client.delete(others[0].keys.purges)
    family.calls.client.set(others[0].keys.purges, "no hash")

    finish_moves()

    assert [purge.purges(other) for other in others[1:]] == [[]] * (len(others) - 1)
