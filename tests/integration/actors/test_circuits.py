"""Open circuits by page, command, finding and metric; sends that met a held unique key, by actor."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.limits import Circuit, note_circuit
from switchyard.conf import declared_yard
from switchyard.jobs.services import submit
from switchyard.operations.findings import facts, queues
from switchyard.operations.findings.facts import facts_of
from switchyard.queues.services import family_of
from tests.factories.callers import Caller
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


@pytest.fixture
def tally(facilities: Facilities) -> Any:

    @dramatiq.actor(actor_name="tally", queue_name="billing", unique_key=lambda month: f"tally {month}")
    def tally(month: str) -> None:
        """Tally a month."""

    return tally


def test_the_actors_page_and_a_metric_count_them(tally: Any, facilities: Facilities, admin_client: Client) -> None:
    for month in ("2026-10", "2026-10", "2026-11"):
        tally.send(month)
    before = facilities.transport.stats("billing").yields
    dramatiq.get_broker().enqueue_many([tally.message("2026-11"), tally.message("2026-12"), tally.message("2026-12")])  # type: ignore[attr-defined]

    page = admin_client.get(reverse("switchyard-actor", args=["tally"])).content.decode()
    metrics = admin_client.get("/metrics").content.decode()

    assert (before, facilities.transport.stats("billing").yields) == ({"tally": 1}, {"tally": 3})
    assert "3 sends enqueued nothing" in page
    assert 'switchyard_unique_yields_total{actor="tally",queue="billing"} 3.0' in metrics


def test_a_message_that_is_sent_twice_is_none_of_them(tally: Any, facilities: Facilities) -> None:
    message = tally.message("2026-10")
    for _ in range(2):
        dramatiq.get_broker().enqueue(message)

    assert facilities.transport.stats("billing").yields == {}


def test_both_jobs_tell_of_the_conflict(tally: Any, facilities: Facilities, admin_client: Client) -> None:
    broker, messages = dramatiq.get_broker(), [tally.message("2026-10") for _ in range(7)]
    for message in messages:
        broker.enqueue(message)
    broker.enqueue(messages[-1])  # a repeated call is told once
    kept, *others = [message.message_id for message in messages]

    page, missing = (admin_client.get(reverse("switchyard-job", args=[id_])) for id_ in (kept, others[-1]))
    shown = admin_client.get(reverse("switchyard-job", args=[kept]), {"format": "json"}).json()
    with pytest.raises(CommandError, match=f"nothing was enqueued: job {kept} held its unique key"):
        call_command("switchyard", "jobs", "show", others[-1])

    assert shown["stands_for"] == others[:-6:-1]
    assert "and was kept instead" in page.content.decode() and others[-1] in page.content.decode()
    assert missing.status_code == 404 and kept in missing.content.decode()


def test_the_api_tells_it_to_the_owner_of_the_job_that_was_kept(
    tally: Any, facilities: Facilities, transactional_db: None
) -> None:
    caller, other = Caller("ada"), Caller("bob")
    kept = submit(tally, "2026-10", owner=caller.token.owner_key)
    gone = tally.message("2026-10")
    dramatiq.get_broker().enqueue(gone)

    assert caller.get(f"/jobs/{kept}").json()["stands_for"] == [gone.message_id]
    told, hidden = (each.get(f"/jobs/{gone.message_id}") for each in (caller, other))
    assert (told.status_code, hidden.status_code) == (404, 404)
    assert kept in told.json()["detail"] and kept not in hidden.json()["detail"]


def test_what_stands_for_others_is_bounded_and_expires(tally: Any, facilities: Facilities) -> None:
    broker: Any = dramatiq.get_broker()
    key = broker.families["billing"].keys.stand_ins

    broker.enqueue_many([tally.message("2026-10") for _ in range(2_100)])

    assert broker.client.hlen(key) == 2_000
    assert 0 < broker.client.pttl(key) <= 3_600_000
