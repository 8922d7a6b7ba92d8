"""Every list is a file with the filter and rights of its page, and no value in an address is an internal error."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import ProgrammingError
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.billing.models import ReconciliationEntry
from apps.shop.models import Customer, Invoice, Payment
from apps.webhooks.models import Delivery, Endpoint
from switchyard.api.models import Token
from switchyard.audit.models import AuditEntry
from switchyard.jobs.services import submit
from tests.factories.alerts import make_alert
from tests.factories.brokers import broker_without_server
from tests.factories.staff import client_of
from tests.integration.bulk.test_letters import bury
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.jobs.passport.test_page import staff

pytestmark = pytest.mark.django_db(transaction=True)
LISTS = {
    "switchyard-jobs": "jobs", "switchyard-letters": "dead-letters", "switchyard-alerts": "alerts",
    "switchyard-audit": "audit", "switchyard-bulk-acts": "bulk-acts", "switchyard-queues": "queues",
    "switchyard-actors": "actors", "switchyard-schedules": "schedules",
}  # fmt: skip


def read(client: Client, page: str, **query: str) -> list[dict[str, Any]]:
    answer = client.get(reverse(page), query | {"export": "json"})
    assert answer.status_code == 200
    return json.loads(answer.content)[LISTS[page]]


@pytest.mark.parametrize("page", LISTS)
def test_every_list_links_its_files(page, admin_client, facilities):
    shown = admin_client.get(reverse(page)).content.decode()
    table = admin_client.get(reverse(page), {"export": "csv"})

    assert "?export=csv" in shown and "?export=json" in shown
    assert table.status_code == 200 and table["Content-Type"].startswith("text/csv")
    assert isinstance(read(admin_client, page), list)


def test_a_file_has_what_matches_the_filter_of_its_page(admin_client, facilities):
    job_row(actor="probe_write")
    waiting = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    bury(2, actor="probe_fail")
    bury(1, actor="probe_add", fingerprint="other")
    make_alert(kind="finding", title="Late")

    jobs = read(admin_client, "switchyard-jobs", actor="probe_add")
    assert [(job["id"], job["arguments"]) for job in jobs] == [(waiting, {"a": 1, "b": 2})]
    assert len(read(admin_client, "switchyard-jobs")) == 2
    assert {each["actor"] for each in read(admin_client, "switchyard-letters", actor="probe_fail")} == {"probe_fail"}
    assert len(read(admin_client, "switchyard-letters")) == 3
    assert [each["title"] for each in read(admin_client, "switchyard-alerts", state="open")] == ["Late"]
    assert read(admin_client, "switchyard-alerts", state="resolved") == []
    assert {each["queue"] for each in read(admin_client, "switchyard-queues")} >= {"default", "urgent"}


def test_arguments_stay_hidden_without_the_right(facilities):
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    [job] = read(staff("view_job"), "switchyard-jobs")

    assert job["arguments"] is None


def test_without_a_broker_there_is_no_half_of_a_list(admin_client):
    with broker_without_server():
        answer = admin_client.get(reverse("switchyard-jobs"), {"export": "csv"})

    assert answer.status_code == 503 and "export: " in answer.content.decode()


def test_an_unusable_filter_is_no_file(admin_client):
    answer = admin_client.get(reverse("switchyard-jobs"), {"export": "csv", "since": "soon"})

    assert answer.status_code == 400 and "since" in answer.content.decode()


@pytest.mark.parametrize("kind", ["alert", "queue"])
def test_a_note_is_on_its_page_and_in_the_audit_log(kind, admin_client, facilities):
    target = str(make_alert().pk) if kind == "alert" else "default"
    page = reverse(f"switchyard-{kind}", args=[target])
    address = reverse(f"switchyard-{kind}-note", args=[target])

    empty = admin_client.post(address, {"text": " "}, follow=True).content.decode()
    admin_client.post(address, {"text": "waits for <b>Stripe</b>, see you at 6"})
    shown = admin_client.get(page).content.decode()
    log = csv.DictReader(io.StringIO(admin_client.get(reverse("switchyard-audit"), {"export": "csv"}).content.decode()))

    assert "note: it is empty" in empty
    assert address in shown and "waits for &lt;b&gt;Stripe&lt;/b&gt;, see you at 6" in shown
    assert AuditEntry.objects.get(act=f"{kind}.note", outcome="done").target == target
    assert [row["reason"] for row in log if row["act"] == f"{kind}.note"] == ["waits for <b>Stripe</b>, see you at 6"]


def test_commands_write_the_same_notes(facilities, capsys):
    alert = make_alert()

    call_command("switchyard", "alerts", "note", str(alert.pk), "ticket 88")
    call_command("switchyard", "queues", "note", "default", "paused for the import", "--json")
    call_command("switchyard", "alerts", "show", str(alert.pk))

    assert "ticket 88" in capsys.readouterr().out
    assert {*AuditEntry.objects.values_list("act", "target", "reason")} == {
        ("alert.note", str(alert.pk), "ticket 88"),
        ("queue.note", "default", "paused for the import"),
    }
    with pytest.raises(CommandError, match="note: it is empty"):
        call_command("switchyard", "queues", "note", "default", " ")


VALUES = ("0", "9" * 30, "%00", "%ED%A0%80", "2026-10-20+25:00", "1." + "0" * 400, "٣")
LOOKUPS = ("year", "year__gte", "gte", "date", "isnull", "in", "range")
SHARED = ("id", "q", "p", "o", "_to_field", "_facets")


def addresses(model: type[Model]) -> Iterator[str]:
    page = admin.site._registry[model]
    base = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    filters = [each[0] if isinstance(each, tuple | list) else each for each in page.list_filter]
    names = {each for each in [*filters, page.date_hierarchy] if isinstance(each, str)}
    for value in VALUES:
        yield from (f"{base}?{name}={value}" for name in (*names, *SHARED))
        yield f"{base}{value}/change/"
    for name in names:
        yield from (f"{base}?{name}__{lookup}={value}" for lookup in LOOKUPS for value in ("0", "99999", "%00"))


@pytest.fixture
def root(facilities):
    return client_of(User.objects.create_superuser("root"), raise_request_exception=False)


@pytest.mark.parametrize("page", ["switchyard_api/token/add/?owner=", "shop/invoice/add/?customer="])
def test_a_new_row_is_filled_in_with_rows_that_there_are(root, page):
    assert {root.get(f"/admin/{page}{value}").status_code for value in (*VALUES, "nobody")} == {200}
    Customer.objects.create(pk=7, name="Ada", email="ada@mail.example", country="DE")
    User.objects.create(pk=7, username="ada")
    assert b'<option value="7" selected>' in root.get(f"/admin/{page}7").content


@pytest.mark.parametrize("value", ["0", "99999", "-1"])
def test_a_year_that_does_not_exist_leads_to_the_list_without_it(root, value):
    page = reverse("admin:switchyard_api_token_changelist")

    answer = root.get(f"{page}?created_at__year={value}")

    assert (answer.status_code, answer.get("Location", "")) in [(302, f"{page}?e=1"), (200, "")]
    assert root.get(f"{page}?e=1").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "mail/sentmail/?message_id__regex=^<(([0-9a-f-])%2B)%2B$",
        *("mail/sentmail/?state__iregex=a", "webhooks/endpoint/?id__exact=1&secret__regex=^a"),
        *("webhooks/endpoint/?secret=a", "webhooks/delivery/?endpoint__secret__startswith=a"),
        *("switchyard_api/idempotentrequest/?body__contains=a", "switchyard_api/token/?secret_hash__startswith=a"),
        *("switchyard_api/token/?owner__password__startswith=a", "switchyard_api/token/?scopes__contains=x"),
        *("auth/user/?username__regex=a", "auth/user/?password__startswith=a"),
        "django_dramatiq/task/?message_data__contains=a",
    ],
)
def test_a_lookup_that_no_filter_uses_is_refused(root, query):
    assert root.get(f"/admin/{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        *("shop/customer/?created_at__year=9999", "shop/invoice/?issued_on__year=9999&issued_on__month=12"),
        *("billing/paymentevent/?received_at__year=9999", "auth/user/?date_joined__year=0", "auth/group/?id__exact=x"),
        "django_dramatiq/task/?created_at__year=0",
    ],
)
def test_a_value_that_no_column_has_leads_to_the_list_without_it(root, query):
    answer = root.get(f"/admin/{query}")

    refused = query.startswith("auth/user")  # its list filters no dates
    assert (answer.status_code, answer.get("Location")) == (
        (400, None) if refused else (302, f"/admin/{query.split('?')[0]}?e=1")
    )


def test_a_failing_list_that_asks_for_nothing_is_an_error(root, monkeypatch):
    def fail(*_: object) -> None:
        raise ProgrammingError("no such table")

    monkeypatch.setattr(ChangeList, "get_results", fail)

    page = reverse("admin:switchyard_api_token_changelist")
    assert (root.get(f"{page}?q=a")["Location"], root.get(f"{page}?e=1").status_code) == (f"{page}?e=1", 500)


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Token, "created_at__gte=2026-01-01T00:00Z&created_at__lt=2026-02-01T00:00Z"),
        (Token, "revoked_at__isnull=True"),
        (Token, "pk__in=1,2"),
        (ReconciliationEntry, "reconciliation__id__exact=1"),
        (Customer, "created_at__year=2026&created_at__month=2&created_at__day=3"),
        (Invoice, "status__exact=paid&currency=EUR&issued_on__gte=2026-01-01"),
        (Payment, "invoice__isempty=1"),
        (Endpoint, "active__exact=1"),
        (Delivery, "endpoint__active__exact=1"),
        (User, "groups__id__exact=1&is_staff__exact=1"),
    ],
)
def test_the_lists_own_links_are_answered(root, model, query):
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    assert root.get(f"{page}?{query}").status_code == 200


def test_every_choice_of_every_filter_is_answered(root):
    for model, page in admin.site._registry.items():
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        context = root.get(address).context
        if not page.list_filter or "cl" not in context:
            continue
        shown = context["cl"]
        links = [choice["query_string"] for spec in shown.filter_specs for choice in spec.choices(shown)]
        assert [link for link in links if root.get(address + link).status_code != 200] == []


@pytest.mark.parametrize("models", [(Token,), pytest.param((), marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_no_value_in_an_address_is_an_internal_error(root, models):
    """Ask for each; in the long run on every page of the admin."""
    asked = [address for model in models or tuple(admin.site._registry) for address in addresses(model)]

    assert [address for address in asked if root.get(address).status_code == 500] == []
