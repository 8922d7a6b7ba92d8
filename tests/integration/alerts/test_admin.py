from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.platform.alerts import services
from apps.platform.alerts.models import Alert
from broker.stores.alert_groups import AlertGroups
from tests.integration.alerts.conftest import fact
from tests.unit.alerts.configuration import with_alert_urls

pytestmark = pytest.mark.django_db

LIST = reverse("admin:switchyard_alerts_alert_changelist")


@pytest.fixture
def alert(groups: AlertGroups) -> Alert:
    groups.raise_(fact(title="<script>alert(1)</script>"))
    with with_alert_urls("log:"):
        services.dispatch_due()
    return Alert.objects.get()


def logged_in(*codenames: str) -> Client:
    user = User.objects.create_user("a.lind", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def test_alerts_are_listed_and_shown_escaped(alert: Alert) -> None:
    client = logged_in("view_alert")

    for address in (LIST, reverse("admin:switchyard_alerts_alert_change", args=[alert.pk])):
        page = client.get(address).content.decode()
        assert "&lt;script&gt;" in page and "<script>alert(1)" not in page


def test_acknowledging_is_noted_with_who_and_when(alert: Alert) -> None:
    client = logged_in("view_alert", "acknowledge_alert")

    for _ in range(2):
        client.post(LIST, {"action": "acknowledge", "_selected_action": [alert.pk]})

    alert.refresh_from_db()
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", "a.lind")
    assert LogEntry.objects.get().change_message == "Acknowledged"


def test_acknowledging_needs_its_right(alert: Alert) -> None:
    logged_in("view_alert").post(LIST, {"action": "acknowledge", "_selected_action": [alert.pk]})

    alert.refresh_from_db()
    assert alert.state == "open"


def test_nobody_adds_changes_or_deletes(alert: Alert) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    page = reverse("admin:switchyard_alerts_alert_change", args=[alert.pk])

    assert client.get(reverse("admin:switchyard_alerts_alert_add")).status_code == 403
    assert client.post(page, {"title": "x"}).status_code == 403
    assert (
        client.post(reverse("admin:switchyard_alerts_alert_delete", args=[alert.pk]), {"post": "yes"}).status_code
        == 403
    )
