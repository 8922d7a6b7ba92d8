"""Alerts go to further people unless somebody acknowledges, and wait for the end of the quiet hours unless critical."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.utils import timezone
from msgspec.structs import replace

from switchyard.alerts import intake, notice, sending
from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.sending import LastingAlerts
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from switchyard.broker.topology import AlertRule
from tests.integration.alerts.conftest import Receiver, fact
from tests.unit.alerts.test_rules import with_rules

pytestmark = pytest.mark.django_db

LATE = fact(kind="finding", fingerprint="finding-queues.late", title="default is late", severity="warning")
RULE = AlertRule("queues.late", channels=("team",), escalate_after_s=600, escalate_to=("oncall",))


@pytest.fixture
def escalating(groups: AlertGroups, receiver: Receiver, second_receiver: Receiver) -> Iterator[None]:
    """A rule that sends to a team, and after ten minutes to those on call; what is late was sent."""
    with with_rules(RULE, urls=(f"team={receiver.url}", f"oncall={second_receiver.url}")):
        groups.raise_(LATE)
        sending.dispatch_due()
        yield


def after_ten_minutes() -> None:
    waiting = Delivery.objects.filter(channel="oncall", state="pending")
    assert all(timedelta(minutes=9) < each.next_try_at - timezone.now() for each in waiting)
    waiting.update(next_try_at=timezone.now())
    sending.dispatch_due()


@pytest.mark.usefixtures("escalating")
def test_what_nobody_acknowledges_goes_to_further_people_who_hear_of_its_end_too(
    receiver: Receiver, second_receiver: Receiver
) -> None:
    sending.dispatch_due()
    soon = len(second_receiver.bodies)
    after_ten_minutes()
    after_ten_minutes()
    intake.resolve_gone("finding", ())
    sending.dispatch_due()

    assert soon == 0
    assert [body["state"] for body in second_receiver.bodies] == ["open", "resolved"]
    assert [body["state"] for body in receiver.bodies] == ["open", "resolved"]


@pytest.mark.usefixtures("escalating")
@pytest.mark.parametrize("act", ["acknowledge", "end"])
def test_what_is_acknowledged_or_over_in_time_stays_where_it_is(second_receiver: Receiver, act: str) -> None:
    alert = Alert.objects.get()
    if act == "acknowledge":
        assert notice.acknowledge(alert.pk, by="ada") == 1
    else:
        intake.resolve_gone("finding", ())

    after_ten_minutes()

    assert second_receiver.bodies == []


@contextmanager
def quiet(receiver: Receiver) -> Iterator[None]:
    """Quiet hours, an hour of which is left."""
    now = timezone.localtime()
    hours = f"{now - timedelta(hours=1):%H:%M}", f"{now + timedelta(hours=1):%H:%M}"
    with with_rules(urls=(receiver.url,), quiet=hours):
        yield


def lasting_of(found: list[AlertFact], clock: Mock, *times_s: float) -> LastingAlerts:
    """Note facts at some times, and send what is to be sent."""
    lasting = LastingAlerts("finding", clock)
    for clock.return_value, each in zip(times_s, found, strict=True):
        lasting.note([(each, 0.0)])
        sending.dispatch_due()
    return lasting


@pytest.mark.parametrize("seen_first", [LATE, replace(LATE, severity="critical", title="default is 90 × late")])
def test_in_quiet_hours_a_warning_waits_until_their_end_or_until_it_is_critical(
    groups: AlertGroups, receiver: Receiver, seen_first: AlertFact
) -> None:
    clock = Mock(return_value=0.0)
    critical = replace(LATE, severity="critical", title="default is 90 × late")
    with quiet(receiver):
        lasting_of([LATE], clock, 0.0)
        held = len(receiver.bodies)
        leader = lasting_of([seen_first, seen_first, critical, critical], clock, 5.0, 10.0, 15.0, 20.0)
        leader.note([(critical, 0.0)])
        sending.dispatch_due()

    assert held == 0
    assert [(body["severity"], body["title"]) for body in receiver.bodies] == [("critical", "default is 90 × late")]


def test_in_quiet_hours_what_is_critical_is_sent_and_what_ended_is_not(groups: AlertGroups, receiver: Receiver) -> None:
    with quiet(receiver):
        groups.raise_(fact())
        groups.raise_(LATE)
        sending.dispatch_due()
        intake.resolve_gone("finding", ())
        sending.dispatch_due()
    Delivery.objects.filter(state="pending").update(next_try_at=timezone.now())
    with with_rules(urls=(receiver.url,)):
        sending.dispatch_due()

    assert [body["type"] for body in receiver.bodies] == ["switchyard.alert.dead_letter"]
