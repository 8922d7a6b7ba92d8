"""Pauses and open circuits of actors by page and command; sends that met a held unique key; other commands."""

import re
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.queue.limits import Circuit, note_circuit
from switchyard.conf import declared_yard
from switchyard.jobs.services import submit
from switchyard.operations.findings import facts, queues
from switchyard.operations.findings.facts import facts_of
from switchyard.queues.services import family_of
from tests.factories.callers import Caller
from tests.factories.commands import json_of, output_of
from tests.factories.staff import staff
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
ran: list[Any] = []
released = threading.Event()


@pytest.fixture
def sync(facilities) -> Iterator[Any]:
    """An actor of the project's yard, beside another one of its queue that runs until it is released."""
    ran.clear()
    released.clear()

    @dramatiq.actor(actor_name="sync", queue_name="billing", redact=("pin",), max_retries=0)
    def sync(customer_id: int, month: str = "", *, pin: str = "") -> None:
        ran.append(customer_id)

    @dramatiq.actor(actor_name="waits", queue_name="billing")
    def waits() -> None:
        ran.append("waits")
        released.wait(60)

    yield sync
    released.set()


def test_what_a_worker_has_fetched_goes_back_and_what_waits_says_why(sync, facilities, run_worker):
    with run_worker("billing", threads=1):
        dramatiq.get_broker().actors["waits"].send()
        wait_for(lambda: ran == ["waits"])
        held = sync.send(7).message_id
        wait_for(lambda: facilities.transport.stats("billing").live.running == 2)
        json_of("actors", "pause", "sync", "--reason", "wrong rates", "--until", "1h")
        poll = dramatiq.get_broker().cancellations
        wait_for(lambda: poll.paused)
        later = [sync.send(8).message_id, sync.send(9).message_id]
        released.set()
        wait_for(lambda: [facilities.records.read(id_).reason for id_ in (held, *later)] == ["actor_paused"] * 3)
        found = facilities.records.read(held)
        listed = json_of("jobs", "list", "--actor", "sync")["jobs"]
        assert ran == ["waits"]
        assert (found.state, found.attempts, found.next_attempt_at) == ("scheduled", 0, None)
        assert {(line["state"], line["reason"], line["next_attempt_at"]) for line in listed} == {
            ("scheduled", "actor_paused", None)
        }

        assert json_of("actors", "resume", "sync")["changed"] is True
        wait_for(lambda: sorted(ran[1:]) == [7, 8, 9])
        wait_for(lambda: facilities.records.states([held, *later]) == ["succeeded"] * 3)

    assert facilities.records.read(held).attempts == 1
    entry = AuditEntry.objects.filter(act="actor.pause").get()
    assert (entry.target, entry.reason, entry.outcome) == ("sync", "wrong rates", "done")


def test_one_customer_waits_and_the_others_start(sync, facilities, run_worker):
    told = json_of("actors", "pause", "sync", "--argument", "customer_id=7", "--reason", "too many")
    for customer in (7, 8):
        sync.send(customer)
        sync.send_with_options(kwargs={"customer_id": customer + 10})
        sync.send_with_options(kwargs={"customer_id": customer})

    with run_worker("billing"):
        wait_for(lambda: len(ran) == 4)
        assert sorted(ran) == [8, 8, 17, 18]
        json_of("actors", "resume", "sync", "--argument", "customer_id=7")
        wait_for(lambda: len(ran) == 6)

    assert sorted(ran) == [7, 7, 8, 8, 17, 18]
    assert told["argument"] == "customer_id=7"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["snyc"], "did you mean sync?"),
        (["sync", "--argument", "customer=7"], "with an argument of sync: customer_id, month"),
        (["sync", "--argument", "customer_id"], "write NAME=VALUE"),
        (["sync", "--argument", "pin=1"], "hides its values"),
        (["sync", "--argument", "customer_id=[1]"], "can be compared"),
        (["sync", "--argument", "customer_id=9007199254740993"], "can be compared"),
        (["sync", "--argument", "customer_id=seven"], "no JSON"),
        (["sync", "--argument", 'customer_id="\\ud800"'], "half of a surrogate pair"),
        (["sync", "--until", "yesterday"], "write a span"),
    ],
)
def test_what_cannot_be_paused_is_refused_with_a_remedy(sync, words, fault):
    with pytest.raises(CommandError, match=fault.replace("?", r"\?")):
        call_command("switchyard", "actors", "pause", *words)

    assert json_of("actors", "show", "sync")["pauses"] == []


def test_the_pages_pause_say_so_and_resume(sync, facilities, admin_client):
    job_id = sync.send(7).message_id
    page, queue = reverse("switchyard-actor", args=["sync"]), reverse("switchyard-queue", args=["billing"])
    pause, resume = (reverse(f"switchyard-actor-{verb}", args=["sync"]) for verb in ("pause", "resume"))
    given = {"argument": "customer_id=7", "until": "10m", "reason": "too many"}

    without_reason = admin_client.post(pause, given | {"reason": ""})
    asked = admin_client.get(pause)
    done = admin_client.post(pause, given)
    pages = [admin_client.get(address) for address in (page, queue, reverse("switchyard-job", args=[job_id]))]
    over = admin_client.post(resume, {"argument": "customer_id=7"})

    assert (without_reason.status_code, asked.status_code, done.status_code, over.status_code) == (422, 200, 302, 302)
    for answer in pages:
        assert all(
            word in answer.content.decode() for word in ("customer_id=7", "Reason: too many", "Resumes by itself")
        )
    assert "too many" not in admin_client.get(page).content.decode()
    acts = list(AuditEntry.objects.values_list("act", "target", "detail__argument").order_by("id"))
    assert acts == [("actor.pause", "sync", "customer_id=7"), ("actor.resume", "sync", "customer_id=7")]


def test_a_text_is_resumed_as_it_was_paused_and_as_the_page_writes_it(sync, facilities, admin_client):
    json_of("actors", "pause", "sync", "--argument", "month=2026-10")
    json_of("actors", "pause", "sync", "--argument", 'month="2026-11"')
    page = admin_client.get(reverse("switchyard-actor", args=["sync"])).content.decode()
    links = re.findall(r'href="([^"]*/resume/[^"]*)"', page)

    assert len(links) == 2
    first = admin_client.get(links[0]).context["argument"]
    admin_client.post(reverse("switchyard-actor-resume", args=["sync"]), {"argument": first})
    assert json_of("actors", "resume", "sync", "--argument", "month=2026-11")["changed"] is True

    assert first == 'month="2026-10"'
    assert json_of("actors", "show", "sync")["pauses"] == []


def test_a_pause_takes_its_right_and_by_a_value_that_to_see_arguments(sync):
    pause = reverse("switchyard-actor-pause", args=["sync"])
    without, with_it = staff("view_operations"), staff("view_operations", "pause_queue")

    answers = [
        without.post(pause, {"reason": "r"}),
        with_it.post(pause, {"reason": "r", "argument": "customer_id=7"}),
        with_it.post(pause, {"reason": "r"}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 302]


def weigh(wagon: int, tare_kg: float = 0.5) -> None:
    """Weigh a wagon."""


@pytest.fixture
def actor(facilities) -> Any:
    """An actor of this project's own broker."""
    return dramatiq.actor(weigh, queue_name="billing", max_retries=3)


def test_the_list_names_every_actor(actor):
    rows = {row["name"]: row for row in json_of("actors", "list")}
    table = output_of("actors", "list")

    [option] = [each for each in rows["weigh"]["options"] if each["name"] == "max_retries"]
    assert rows["weigh"]["queue"] == "billing" and (option["value"], option["text"]) == (3, "3")
    assert any(line.split()[:4] == ["weigh", "billing", "billing", "max_retries=3"] for line in table.splitlines())


def test_one_actor_is_shown(actor):
    shown = json_of("actors", "show", "weigh")
    lines = output_of("actors", "show", "weigh")

    assert shown["signature"] == "weigh(wagon: int, tare_kg: float = 0.5) -> None"
    assert [each["required"] for each in shown["parameters"]] == [True, False]
    assert shown["facts"]["last day"]["outcomes"] == {} and shown["history"]["failures"] == []
    assert lines.startswith(shown["signature"]) and "Weigh a wagon." in lines and "number of retries" in lines


def test_one_is_sent_with_its_tags_and_audited(actor, facilities):
    job_id = json_of("actors", "send", "weigh", "--args", "[7]", "--tag", "heavy")["id"]
    late = output_of("actors", "send", "weigh", "--kwargs", '{"wagon": 8}', "--delay", "60000").strip()

    message = facilities.transport.find_message("billing", job_id)
    assert message is not None and (message.args, message.options["tags"]) == ((7,), ["heavy"])
    assert facilities.transport.stats("billing").live.scheduled == 1
    entry = AuditEntry.objects.first()
    assert entry is not None and (entry.act, entry.via, entry.detail["job"]) == ("job.send", "command", late)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("weihg",), r"did you mean weigh\?"),
        (("weigh",), "missing a required argument: 'wagon'"),
        (("weigh", "--args", '["7"]'), "wagon: expects int; this is a text"),
        (("weigh", "--args", "7"), "--args: write a JSON list"),
        (("weigh", "--args", "[7"), "--args: no JSON from character 3 on"),
        (("weigh", "--kwargs", "[]"), "--kwargs: write a JSON object"),
        (("weigh", "--args", "[7]", "--delay", "-1"), "write milliseconds"),
        (("weigh", "--args", "[7]", "--tag", "x" * 65), "write at most 10 texts"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(actor, facilities, words, why):
    with pytest.raises(CommandError, match=why):
        call_command("switchyard", "actors", "send", *words)

    assert facilities.transport.stats("billing").live.waiting == 0


ENDPOINT = "5f0c"


@pytest.fixture
def waiting(facilities, run_worker) -> str:
    """A delivery that waits for its endpoint, whose circuit is open."""
    circuit = Circuit(declared_yard().dependency("webhook"), 60_000, {"deliver_webhook": 2}, "endpoint_id", ENDPOINT)
    family = family_of("webhook")
    for number in range(10):
        note_circuit(family, circuit, f"x{number}", "failed", reason="no answer")
    job_id = dramatiq.get_broker().actors["deliver_webhook"].send("gone", ENDPOINT).message_id
    with run_worker("webhook"):
        wait_for(lambda: facilities.transport.stats("webhook").live.scheduled == 1)
    return str(job_id)


def test_pages_and_commands_say_what_waits_for_what(waiting, admin_client):
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


def test_a_person_closes_it_where_pauses_are_resumed(waiting, facilities, admin_client):
    resume = reverse("switchyard-actor-resume", args=["deliver_webhook"])

    assert admin_client.post(resume, {"argument": f"endpoint_id={ENDPOINT}"}).status_code == 302
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
def test_an_actor_without_such_a_circuit_is_told_what_to_do(words, remedy):
    with pytest.raises(CommandError, match=remedy):
        json_of("actors", "open", *words, "--until", "10m")


def test_a_finding_and_a_metric_name_the_dependency_and_count_what_waits(waiting, admin_client):
    [found] = [each for each in queues.look_at_held(facts_of(facts.read().state)) if each.code == "circuit_open"]
    metrics = admin_client.get("/metrics").content.decode()

    assert (found.severity, found.subject) == ("warning", "webhook")
    assert found.seen.startswith("webhook is down for 1 value of endpoint_id: its circuit is open in webhook since")
    assert found.seen.endswith(", 1 job waits")
    assert ENDPOINT not in found.seen + found.cause
    assert 'switchyard_circuits_open{dependency="webhook",queue="webhook"} 1.0' in metrics


@pytest.fixture
def tally(facilities) -> Any:
    @dramatiq.actor(actor_name="tally", queue_name="billing", unique_key=lambda month: f"tally {month}")
    def tally(month: str) -> None:
        """Tally a month."""

    return tally


def test_the_actors_page_and_a_metric_count_them(tally, facilities, admin_client):
    for month in ("2026-10", "2026-10", "2026-11"):
        tally.send(month)
    before = facilities.transport.stats("billing").yields
    dramatiq.get_broker().enqueue_many([tally.message("2026-11"), tally.message("2026-12"), tally.message("2026-12")])

    page = admin_client.get(reverse("switchyard-actor", args=["tally"])).content.decode()
    metrics = admin_client.get("/metrics").content.decode()

    assert (before, facilities.transport.stats("billing").yields) == ({"tally": 1}, {"tally": 3})
    assert "3 sends enqueued nothing" in page
    assert 'switchyard_unique_yields_total{actor="tally",queue="billing"} 3.0' in metrics


def test_a_message_that_is_sent_twice_is_none_of_them(tally, facilities):
    message = tally.message("2026-10")
    for _ in range(2):
        dramatiq.get_broker().enqueue(message)

    assert facilities.transport.stats("billing").yields == {}


def test_both_jobs_tell_of_the_conflict(tally, facilities, admin_client):
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


def test_the_api_tells_it_to_the_owner_of_the_job_that_was_kept(tally, facilities, transactional_db):
    caller, other = Caller("ada"), Caller("bob")
    kept = submit(tally, "2026-10", owner=caller.token.owner_key)
    gone = tally.message("2026-10")
    dramatiq.get_broker().enqueue(gone)

    assert caller.get(f"/jobs/{kept}").json()["stands_for"] == [gone.message_id]
    told, hidden = (each.get(f"/jobs/{gone.message_id}") for each in (caller, other))
    assert (told.status_code, hidden.status_code) == (404, 404)
    assert kept in told.json()["detail"] and kept not in hidden.json()["detail"]


def test_what_stands_for_others_is_bounded_and_expires(tally, facilities):
    broker: Any = dramatiq.get_broker()
    key = broker.families["billing"].keys.stand_ins

    broker.enqueue_many([tally.message("2026-10") for _ in range(2_100)])

    assert broker.client.hlen(key) == 2_000
    assert 0 < broker.client.pttl(key) <= 3_600_000
