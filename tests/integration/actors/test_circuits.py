"""Open circuits by page, command, finding and metric; a person closes one."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.circuits import Circuit, note_circuit
from switchyard.conf import declared_yard
from switchyard.operations.findings import facts, queues
from switchyard.operations.findings.facts import facts_of
from switchyard.queues.services import family_of
from tests.factories.commands import json_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
ENDPOINT = "5f0c"


@pytest.fixture
def waiting(facilities: Facilities, run_worker: Any) -> str:
    """A delivery that waits for its endpoint, whose circuit is open."""
    circuit = Circuit(declared_yard().dependency("webhook"), 60_000, {"deliver_webhook": 2}, "endpoint_id", ENDPOINT)
    family = family_of("webhook")
    for number in range(10):
        note_circuit(family, circuit, f"x{number}", "failed", reason="no answer")
    job_id = dramatiq.get_broker().actors["deliver_webhook"].send("gone", ENDPOINT).message_id
    with run_worker("webhook"):
        wait_for(lambda: facilities.transport.stats("webhook").live.scheduled == 1)
    return str(job_id)


def test_pages_and_commands_say_what_waits_for_what(waiting: str, admin_client: Client) -> None:
    pages = [
        reverse("switchyard-actor", args=["deliver_webhook"]),
        reverse("switchyard-queue", args=["webhook"]),
        reverse("switchyard-job", args=[waiting]),
    ]
    [shown] = json_of("actors", "show", "deliver_webhook")["pauses"]

    for page in pages:
        text = admin_client.get(page).content.decode()
        assert "Circuit open" in text, page
        assert "no answer" in text, page
    assert shown.startswith(f'circuit webhook with endpoint_id="{ENDPOINT}": Circuit open')
    assert json_of("jobs", "list", "--actor", "deliver_webhook")["jobs"][0]["reason"] == "circuit_open"


def test_a_person_closes_it_where_pauses_are_resumed(
    waiting: str, facilities: Facilities, admin_client: Client
) -> None:
    resume = reverse("switchyard-actor-resume", args=["deliver_webhook"])

    answer = admin_client.post(resume, {"argument": f"endpoint_id={ENDPOINT}"})

    assert answer.status_code == 302
    assert facilities.transport.stats("webhook").circuits == ()
    assert (job := facilities.records.read(waiting)) is not None
    assert job.reason != "circuit_open"
    [entry] = AuditEntry.objects.all()
    assert (entry.act, entry.target, entry.count) == ("actor.resume", "deliver_webhook", 1)
    assert entry.detail == {"argument": f'endpoint_id="{ENDPOINT}"'}


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("send_welcome_mail",), "declare what it calls with depends_on, or pause it"),
        (("deliver_webhook",), "choose it by a value of endpoint_id"),
    ],
)
def test_an_actor_without_such_a_circuit_is_told_what_to_do(words: tuple[str, ...], remedy: str) -> None:
    with pytest.raises(CommandError, match=remedy):
        json_of("actors", "open", *words, "--until", "10m")


def test_a_finding_and_a_metric_name_the_dependency_and_count_what_waits(waiting: str, admin_client: Client) -> None:
    [found] = [each for each in queues.look_at_held(facts_of(facts.read().state)) if each.code == "circuit_open"]
    metrics = admin_client.get("/metrics").content.decode()

    assert (found.severity, found.subject) == ("warning", "webhook")
    assert found.seen.startswith("webhook is down for 1 value of endpoint_id: its circuit is open in webhook since")
    assert found.seen.endswith(", 1 job waits")
    assert ENDPOINT not in found.seen + found.cause
    assert 'switchyard_circuits_open{dependency="webhook",queue="webhook"} 1.0' in metrics
