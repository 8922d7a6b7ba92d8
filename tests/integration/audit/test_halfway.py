"""Acts that fail halfway, or whose process is killed, leave a row that says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.dead_letters import acts
from switchyard.dead_letters.queries import find
from tests.factories.letters import keep, letter
from tests.factories.staff import client_of, log_in

CHOSEN = reverse("switchyard-letters-chosen", args=["requeue"])
KILLED = """
import os, signal, django
django.setup()
from switchyard.audit.services import Who, act
with act("letter.discard", who=Who("ada", "command"), target="a", reason="test data"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def failing_at_the_third(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the action work for two letters, then raise."""
    real, calls = acts.act_on, []

    def action(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(acts, "act_on", action)
    yield


@pytest.mark.django_db
def test_bulk_whose_broker_goes_away_counts_what_it_did(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = log_in()
    rows = [find(keep(letter(id=f"{number}")).id).pk for number in range(5)]
    data = {"ids": ",".join(map(str, rows)), "confirmed": "1", "reason": "fixed"}

    with failing_at_the_third(BrokerUnavailable("requeue", "away"), monkeypatch):
        client.post(CHOSEN, data)

    entry = AuditEntry.objects.get()
    assert (entry.act, entry.who, entry.reason, entry.count) == ("letter.requeue", "root", "fixed", 2)
    assert (entry.outcome, entry.error) == ("failed", "BrokerError")


@pytest.mark.django_db
def test_bulk_whose_database_fails_counts_what_it_did(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(User.objects.create_superuser("root"), raise_request_exception=False)
    rows = [find(keep(letter(id=f"{number}")).id).pk for number in range(5)]

    with failing_at_the_third(DatabaseError("disk I/O error"), monkeypatch):
        answer = client.post(CHOSEN, {"ids": ",".join(map(str, rows)), "confirmed": "1"})

    entry = AuditEntry.objects.get()
    assert answer.status_code == 500
    assert (entry.count, entry.outcome, entry.error) == (2, "failed", "DatabaseError")


def test_killed_process_leaves_a_row_that_has_begun(
    transactional_db: None, process_environment: dict[str, str]
) -> None:
    environment = process_environment | {"DJANGO_SETTINGS_MODULE": "project.settings"}

    died = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=60, check=False)

    entry = AuditEntry.objects.get()
    assert died.returncode == -9
    assert (entry.act, entry.target, entry.outcome, entry.ended_at) == ("letter.discard", "a", "begun", None)
