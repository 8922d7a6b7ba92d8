"""Acts that fail halfway, or whose process is killed, leave a row that says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from django.db import DatabaseError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities
from switchyard.dead_letters import acts
from tests.factories.letters import keep, letter

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
@pytest.mark.parametrize("error", [BrokerUnavailable("requeue", "away"), DatabaseError("disk I/O error")])
def test_an_act_on_several_that_a_server_ends_counts_what_it_did(
    error: Exception, facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [keep(letter(id=f"{number}")).id for number in range(5)]

    with failing_at_the_third(error, monkeypatch), suppress(DatabaseError):
        acts.apply("requeue", ids, who=Who("ada", "command"), reason="fixed")

    entry = AuditEntry.objects.get()
    assert (entry.act, entry.who, entry.reason, entry.count) == ("letter.requeue", "ada", "fixed", 2)
    assert (entry.outcome, entry.error) == (
        "failed", "BrokerError" if isinstance(error, BrokerUnavailable) else "DatabaseError",
    )  # fmt: skip


def test_killed_process_leaves_a_row_that_has_begun(
    transactional_db: None, process_environment: dict[str, str]
) -> None:
    environment = process_environment | {"DJANGO_SETTINGS_MODULE": "project.settings"}

    died = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=60, check=False)

    entry = AuditEntry.objects.get()
    assert died.returncode == -9
    assert (entry.act, entry.target, entry.outcome, entry.ended_at) == ("letter.discard", "a", "begun", None)
