"""Rows in the audit log of acts that commands do."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.jobs.services import submit
from tests.factories.brokers import broker_without_server
from tests.factories.commands import output_of
from tests.factories.letters import keep, letter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def emptied(facilities: Facilities) -> None:
    """Every test begins with an empty broker."""


def row() -> AuditEntry:
    return AuditEntry.objects.get()


def seen(entry: AuditEntry) -> tuple[Any, ...]:
    return entry.act, entry.target, entry.via, entry.reason, entry.count, entry.outcome


def test_pause_that_the_broker_does_not_answer_is_a_failed_row() -> None:
    with broker_without_server(), pytest.raises(CommandError):
        output_of("queues", "pause", "default")

    assert (row().outcome, row().error) == ("failed", "BrokerUnavailable")


def test_letters_are_moved_with_one_row_for_all(facilities: Facilities) -> None:
    for number in range(3):
        keep(letter(id=f"{number}"))

    with pytest.raises(SystemExit):
        output_of("deadletters", "discard", "0", "1", "nope", "--reason", "test data")

    assert seen(row()) == ("letter.discard", "", "command", "test data", 2, "done")
    assert row().detail == {"ids": ["0", "1", "nope"], "chosen": 3}


def test_cancelled_job_is_a_row_with_the_answer() -> None:
    @dramatiq.actor(actor_name="audited", queue_name="default")
    def audited() -> None: ...

    try:
        job_id = submit(audited, kwargs={}, delay_ms=60_000)
        output_of("jobs", "cancel", job_id)
    finally:
        del dramatiq.get_broker().actors["audited"]

    assert seen(row()) == ("job.cancel", job_id, "command", "", 1, "done")
    assert row().detail == {"answer": "cancelled"}


def test_tokens_are_created_and_revoked_with_rows_without_their_secret() -> None:
    User.objects.create_user("ada")
    plain = output_of("tokens", "create", "--user", "ada", "--scopes", "read").strip()
    output_of("tokens", "revoke", plain)

    revoked, created = AuditEntry.objects.all()
    assert (created.act, created.target, created.count) == ("token.create", plain.split("_")[1], 1)
    assert (revoked.act, revoked.target, revoked.count) == ("token.revoke", plain.split("_")[1], 1)
    assert plain.split("_", 2)[2] not in f"{created.__dict__}{revoked.__dict__}"
