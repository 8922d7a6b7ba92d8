"""No value in a list's address ends in an internal error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.platform.api.models import Token
from apps.product.billing.models import PaymentEvent
from broker.interface import Facilities

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
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.mark.parametrize("value", ["0", "99999", "-1"])
def test_a_year_that_does_not_exist_leads_to_the_list_without_it(staff: Client, value: str) -> None:
    page = reverse("admin:switchyard_api_token_changelist")

    answer = staff.get(f"{page}?created_at__year={value}")

    assert (answer.status_code, answer.get("Location", "")) in [(302, f"{page}?e=1"), (200, "")]
    assert staff.get(f"{page}?e=1").status_code == 200


@pytest.mark.parametrize(
    "models", [(Token, PaymentEvent), pytest.param((), marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_no_value_in_an_address_is_an_internal_error(staff: Client, models: tuple[type[Model], ...]) -> None:
    """Ask for each; in the long run on every page of the admin."""
    failed = [
        address
        for model in models or tuple(admin.site._registry)
        for address in addresses(model)
        if staff.get(address).status_code == 500
    ]

    assert failed == []
