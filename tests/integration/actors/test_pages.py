"""The list of actors, the page of one, and the form that sends it."""

import uuid
from typing import Any

import dramatiq
import pytest
from django.urls import reverse

from switchyard.actors import queries as ended_jobs
from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.stores.yard_facts import DEAD, HOUR_MS, RETRIED, RUN_MS, RUNS, SENT, SUCCEEDED, WAITS
from switchyard.dead_letters.models import DeadLetter
from switchyard.history.fact_keeper import store_hour
from switchyard.history.models import JobRow, SearchValue
from switchyard.operations.past import PAST, same_hours
from tests.factories.commands import json_of
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db

LIST, COSTS = reverse("switchyard-actors"), reverse("switchyard-costs")


def charge(customer_id: int, amount: float = 9.5, *, pin: str = "0000") -> None:
    """Charge a customer.

    Safe to repeat.
    """


@pytest.fixture
def actor(facilities) -> Any:
    """An actor of this project's own broker, with a redacted argument."""
    return dramatiq.actor(charge, queue_name="billing", redact=("pin",), rate_limit="10/m")


def page_of(name: str) -> str:
    return reverse("switchyard-actor", args=[name])


def send_to(name: str) -> str:
    return reverse("switchyard-actor-send", args=[name])


def test_the_list_names_queue_pool_options_and_place(actor):
    page = staff("view_operations").get(LIST).content.decode()

    assert page_of("charge") in page and "Charge a customer." in page
    assert "rate_limit=&#x27;10/m&#x27;" in page and "redact=(&#x27;pin&#x27;,)" in page
    assert "tests.integration.actors.test_pages" in page and "test_pages.py:" in page
    assert "time_limit=600000" not in page  # the queue's


def test_the_page_and_the_command_show_attempts_of_all_hosts_and_what_is_usual(actor, facilities):
    store = facilities.facts
    now = store.server_ms()
    counts = {SUCCEEDED: 30, DEAD: 1, RUNS + 4: 31, WAITS: 31, RUN_MS: 2_000}
    store.forget()
    PAST.clear()
    store.add("pool:host:1", 1, {"a:charge": counts})
    for hour in same_hours(now // HOUR_MS)[:4]:
        store_hour(hour, {"a:charge": {SUCCEEDED: 60, RUNS + 4: 60, WAITS: 60, SENT: 120}})
    store_hour(now // HOUR_MS - 2, {"a:charge": {SUCCEEDED: 7}})

    page, listed = (staff("view_operations").get(each).content.decode() for each in (page_of("charge"), LIST))
    shown = json_of("actors", "show", "charge")
    PAST.clear()

    assert "31 attempts" in page and "30 succeeded, 1 dead" in page
    assert "Usually at this hour, it takes 60 ms and waits 2 ms, 2.0 a minute are sent, 0.0 % of its attempts" in page
    assert "7 succeeded" in listed
    # The hour and the day have what no minute has been written of yet.
    assert [each["outcomes"] for each in shown["facts"].values()] == [{"succeeded": 30, "dead": 1}] * 3
    assert shown["usually"].startswith("Usually at this hour, it takes 60 ms")


def test_costs_are_told_by_owner_and_by_value_of_an_argument(actor, facilities):
    actor.options["search"] = ("customer_id",)
    facilities.facts.forget()
    hour = facilities.facts.server_ms() // HOUR_MS - 2
    store_hour(hour, {"o:user:7": {SUCCEEDED: 3, DEAD: 1, RUN_MS: 90_000}, "o:other": {SUCCEEDED: 1, RUN_MS: 500}})
    for number, value in enumerate("778", 1):
        row = ended(number, state="dead" if number == 2 else "succeeded", run_ms=10_000)
        SearchValue.objects.create(name="customer_id", value=value, job_id=row.job_id, finished_at=row.finished_at)
    reader = staff("view_operations", "view_job")

    owners = reader.get(COSTS).content.decode()
    file = reader.get(COSTS + "?export=json").json()["costs"]

    assert "Costs by owner: 1 min 30 s of run time in all" in owners and "?owner=user%3A7" in owners
    assert "3 succeeded" in owners and "1 dead" in owners and "?owner=other" not in owners
    assert [(each["owner"], each["total_ms"]) for each in file] == [("user:7", 90_000), ("other", 500)]
    assert reader.get(COSTS + "?by=customer_id").status_code == 403, "its values are arguments"
    page = staff("view_operations", "view_job", "view_arguments").get(COSTS + "?by=customer_id").content.decode()
    assert "</code>: 30 s of run time in all" in page and "1 succeeded" in page and "1 dead" in page
    assert page.index("argument=customer_id%3D7") < page.index("argument=customer_id%3D8")


def test_the_page_shows_code_options_with_their_rules_and_no_secret(actor):
    page = staff("view_operations").get(page_of("charge")).content.decode()

    assert "charge(customer_id: int, amount: float = 9.5, *, pin: str = [redacted]) -&gt; None" in page
    assert "Safe to repeat." in page and "0000" not in page
    assert "units are s, m, h, d" in page
    assert "none ended" in page and "this actor has no open dead letter" not in page
    assert "switchyard_dead_letters.view_deadletter" in page
    assert "<form" not in page.partition('id="failures"')[2].partition("</main>")[0] or send_to("charge") not in page


def test_failures_link_their_letters_and_the_newest_are_left(actor, monkeypatch):
    for number, fingerprint in enumerate(("abc", "abc", "abc", "new")):
        when = f"2026-11-2{number}T10:00Z"
        DeadLetter.objects.create(
            message_id=str(uuid.uuid4()), queue="billing", actor="charge" if number else "other", reason="exhausted",
            exception="KeyError", error="'vat_rate'", traceback="", attempts=1, payload={}, fingerprint=fingerprint,
            enqueued_at=when, died_at=when, duration_ms=1, state_at=when,
        )  # fmt: skip

    page = staff("view_operations", "view_deadletter").get(page_of("charge")).content.decode()
    monkeypatch.setattr(ended_jobs, "MOST_GROUPS", 1)

    assert '?fingerprint=abc">2</a>' in page and "KeyError" in page
    assert [each.fingerprint for each in ended_jobs.failures_of("charge", None, letters=True)] == ["new"]


def ended(number: int, **fields: Any) -> JobRow:
    at = now_ms() - number * 60_000
    given = {"actor": "charge", "state": "succeeded", "run_ms": 10 * number, "wait_ms": number, "finished_at": at}
    row = given | {"queue": "billing", "lane": "billing", "attempts": 1, "generation": 0, "sequence": 1} | fields
    return JobRow.objects.create(job_id=str(uuid.UUID(int=number)), **row)


FAILED = {"fingerprint": "abc", "error_type": "KeyError", "error_message": "'vat_rate'"}


def test_history_gives_the_failures_of_a_day(actor):
    for number in range(1, 121):
        ended(number, **({"failed_at": now_ms() - 60_000, **FAILED} if number % 40 == 0 else {}))
    ended(200, actor="other", failed_at=now_ms(), **FAILED)

    found = ended_jobs.of_actor("charge")
    page = staff("view_operations", "view_job").get(page_of("charge")).content.decode()

    assert [(group.fingerprint, group.jobs) for group in found.failures] == [("abc", 3)]
    assert "&amp;failures=1&amp;fingerprint=abc" in page and "KeyError" in page


def test_recent_jobs_need_their_rights(actor):
    ended(1, arguments='{"customer_id": 4711}')
    job_id = str(uuid.UUID(int=1))

    pages = [
        staff("view_operations", *rights).get(page_of("charge")).content.decode()
        for rights in ((), ("view_job",), ("view_job", "view_arguments"))
    ]

    assert [job_id in page for page in pages] == [False, True, True]
    assert ["4711" in page for page in pages] == [False, False, True]


def test_the_form_sends_one_job_and_links_it(admin_client, actor, facilities):
    page = admin_client.get(page_of("charge")).content.decode()
    job_id = page.partition('name="job_id" value="')[2].partition('"')[0]
    fields = {"argument-customer_id": "7", "argument-amount": "9.5", "argument-pin": '"1234"', "job_id": job_id}

    first = admin_client.post(send_to("charge"), fields)
    again = admin_client.post(send_to("charge"), fields)

    assert first.status_code == again.status_code == 302
    assert first["Location"] == again["Location"] and job_id in first["Location"]
    assert facilities.transport.stats("billing").live.waiting == 1
    assert facilities.transport.find_message("billing", job_id).kwargs == {"customer_id": 7, "pin": "1234"}
    entry = AuditEntry.objects.last()
    assert (entry.act, entry.target, entry.outcome, entry.count) == ("job.send", "charge", "done", 1)
    assert entry.detail["job"] == job_id and "1234" not in str(entry.detail)


def test_a_wrong_field_has_its_error_beside_it_and_no_secret_returns(admin_client, actor, facilities):
    fields = {"argument-customer_id": '"seven"', "argument-pin": '"1234"', "delay_s": "-1"}

    answer = admin_client.post(send_to("charge"), fields)

    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'id="id_argument-customer_id_error" role="alert">expects int; this is a text' in page
    assert "greater than or equal to 0" in page and page.count(" autofocus") == 1
    assert "&quot;seven&quot;" in page and "1234" not in page
    assert facilities.transport.stats("billing").live.waiting == 0 and not AuditEntry.objects.exists()


def test_a_unique_key_that_is_held_is_said_with_its_job(admin_client, facilities):
    dramatiq.actor(lambda: None, actor_name="count_all", queue_name="billing", unique_key="count")
    first = admin_client.post(send_to("count_all"), {"job_id": str(uuid.UUID(int=1))}, follow=True).content.decode()
    second = admin_client.post(send_to("count_all"), {"job_id": str(uuid.UUID(int=2))}, follow=True).content.decode()

    assert "is enqueued as job" in first
    assert "Nothing was sent: job" in second and str(uuid.UUID(int=1)) in second
    assert facilities.transport.stats("billing").live.waiting == 1


def test_page_names_the_hosts_that_were_called(facilities, admin_client):
    counts = {"slow.example": {SUCCEEDED: 5, RETRIED: 3}, "fine.example": {SUCCEEDED: 1_200}, "other": {RETRIED: 4}}
    facilities.facts.add("pool:host:1", 1, {f"d:webhook {host}": each for host, each in counts.items()})

    found = ended_jobs.hosts_called(dramatiq.get_broker().get_actor("deliver_webhook"))
    pages = [admin_client.get(page_of(name)).content.decode() for name in ("deliver_webhook", "send_welcome_mail")]

    assert found == [("other", 4, 4), ("slow.example", 8, 3), ("fine.example", 1_200, 0)]
    assert ["Hosts called" in page for page in pages] == [True, False]
    assert "slow.example" in pages[0] and "1,200" in pages[0]
