"""No value in a list's address ends in an internal error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.db import ProgrammingError
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.billing.models import ReconciliationEntry
from apps.shop.models import Customer, Invoice, Payment
from apps.webhooks.models import Delivery, Endpoint
from switchyard.api.models import Token
from switchyard.broker.interface import Facilities
from tests.factories.staff import client_of

pytestmark = pytest.mark.django_db(transaction=True)

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
def staff(facilities: Facilities) -> Client:
    return client_of(User.objects.create_superuser("root"), raise_request_exception=False)


@pytest.mark.parametrize("page", ["switchyard_api/token/add/?owner=", "shop/invoice/add/?customer="])
def test_a_new_row_is_filled_in_with_rows_that_there_are(staff: Client, page: str) -> None:
    assert {staff.get(f"/admin/{page}{value}").status_code for value in (*VALUES, "nobody")} == {200}
    Customer.objects.create(pk=7, name="Ada", email="ada@mail.example", country="DE")
    User.objects.create(pk=7, username="ada")
    assert b'<option value="7" selected>' in staff.get(f"/admin/{page}7").content


@pytest.mark.parametrize("value", ["0", "99999", "-1"])
def test_a_year_that_does_not_exist_leads_to_the_list_without_it(staff: Client, value: str) -> None:
    page = reverse("admin:switchyard_api_token_changelist")

    answer = staff.get(f"{page}?created_at__year={value}")

    assert (answer.status_code, answer.get("Location", "")) in [(302, f"{page}?e=1"), (200, "")]
    assert staff.get(f"{page}?e=1").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "mail/sentmail/?message_id__regex=^<(([0-9a-f-])%2B)%2B$",
        "mail/sentmail/?state__iregex=a",
        "webhooks/endpoint/?id__exact=1&secret__regex=^a",
        "webhooks/endpoint/?secret=a",
        "webhooks/delivery/?endpoint__secret__startswith=a",
        "switchyard_api/idempotentrequest/?body__contains=a",
        "switchyard_api/token/?secret_hash__startswith=a",
        "switchyard_api/token/?owner__password__startswith=a",
        "switchyard_api/token/?scopes__contains=x",
        "auth/user/?username__regex=a",
        "auth/user/?password__startswith=a",
        "django_dramatiq/task/?message_data__contains=a",
    ],
)
def test_a_lookup_that_no_filter_uses_is_refused(staff: Client, query: str) -> None:
    assert staff.get(f"/admin/{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        *("shop/customer/?created_at__year=9999", "shop/invoice/?issued_on__year=9999&issued_on__month=12"),
        *("billing/paymentevent/?received_at__year=9999", "auth/user/?date_joined__year=0", "auth/group/?id__exact=x"),
        "django_dramatiq/task/?created_at__year=0",
    ],
)
def test_a_value_that_no_column_has_leads_to_the_list_without_it(staff: Client, query: str) -> None:
    answer = staff.get(f"/admin/{query}")

    refused = query.startswith("auth/user")  # its list filters no dates
    assert (answer.status_code, answer.get("Location")) == (
        (400, None) if refused else (302, f"/admin/{query.split('?')[0]}?e=1")
    )


def test_a_failing_list_that_asks_for_nothing_is_an_error(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ProgrammingError("no such table")

    monkeypatch.setattr(ChangeList, "get_results", fail)

    page = reverse("admin:switchyard_api_token_changelist")
    assert staff.get(f"{page}?q=a")["Location"] == f"{page}?e=1"
    assert staff.get(f"{page}?e=1").status_code == 500


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
def test_the_lists_own_links_are_answered(staff: Client, model: type[Model], query: str) -> None:
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    assert staff.get(f"{page}?{query}").status_code == 200


def test_every_choice_of_every_filter_is_answered(staff: Client) -> None:
    for model, page in admin.site._registry.items():
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        context = staff.get(address).context
        if not page.list_filter or "cl" not in context:
            continue
        shown = context["cl"]
        links = [choice["query_string"] for spec in shown.filter_specs for choice in spec.choices(shown)]
        assert [link for link in links if staff.get(address + link).status_code != 200] == []


@pytest.mark.parametrize("models", [(Token,), pytest.param((), marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_no_value_in_an_address_is_an_internal_error(staff: Client, models: tuple[type[Model], ...]) -> None:
    """Ask for each; in the long run on every page of the admin."""
    failed = [
        address
        for model in models or tuple(admin.site._registry)
        for address in addresses(model)
        if staff.get(address).status_code == 500
    ]

    assert failed == []
