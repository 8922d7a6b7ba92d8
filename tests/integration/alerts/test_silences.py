"""Silenced alerts are written and counted, but not sent; a silence ends by itself or by a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from switchyard.alerts import acts, sending, silences
from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused
from switchyard.broker.stores.alert_groups import AlertGroups
from tests.integration.alerts.conftest import Receiver, fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db

ADA = Who("ada", "page")


def configured(receiver: Receiver) -> Any:
    return with_alert_urls(receiver.url)


def silence(fingerprint: str = "", **changes: Any) -> Silence:
    until = timezone.now() + timedelta(hours=1)
    values = {"until": until, "reason": "the provider is slow", "who": ADA}
    return acts.silence(fingerprint, **values | changes)


def test_silenced_cause_is_written_and_counted_but_not_sent(groups: AlertGroups, receiver: Receiver) -> None:
    silence("f00dfacef00dface")
    groups.raise_(fact())
    groups.raise_(fact(fingerprint="another"))

    with configured(receiver):
        assert sending.dispatch_due() == 1

    assert [body["fingerprint"] for body in receiver.bodies] == ["another"]
    alert = Alert.objects.get(fingerprint="f00dfacef00dface")
    assert (alert.count, alert.state, alert.deliveries.get().state) == (1, "open", "silenced")


def test_every_alert_is_silenced_for_a_time(groups: AlertGroups, receiver: Receiver) -> None:
    silence()
    groups.raise_(fact())
    groups.raise_(fact(fingerprint="another"))

    with configured(receiver):
        assert sending.dispatch_due() == 0

    assert receiver.bodies == [] and Alert.objects.count() == 2


def test_digest_is_silenced_and_the_one_after_it_counts_on(groups: AlertGroups, receiver: Receiver) -> None:
    with configured(receiver):
        groups.raise_(fact())
        sending.dispatch_due()
        made = silence("f00dfacef00dface")
        for _ in range(5):
            groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 0 and Delivery.objects.filter(state="silenced").exists())
        acts.unsilence(made.pk, who=ADA)
        groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 1)

    assert [(body["new"], body["count"]) for body in receiver.bodies] == [(1, 1), (1, 7)]


def test_silence_ends_by_itself(groups: AlertGroups, receiver: Receiver) -> None:
    silence(until=timezone.now() - timedelta(seconds=1))
    groups.raise_(fact())

    with configured(receiver):
        assert sending.dispatch_due() == 1


def test_message_that_waits_for_a_retry_is_held_back(groups: AlertGroups, receiver: Receiver) -> None:
    receiver.answers = [503]
    groups.raise_(fact())

    with configured(receiver):
        sending.dispatch_due()
        silence("f00dfacef00dface")
        Delivery.objects.update(next_try_at=timezone.now())
        assert sending.dispatch_due() == 0

    assert Delivery.objects.get().state == "silenced" and receiver.bodies == []


@pytest.mark.parametrize("span", ["", "1", "0h", "2w", "31d", "99999d", "-1h"])
def test_span_that_is_unusable_or_too_long_is_refused(span: str) -> None:
    with pytest.raises(ActRefused):
        silences.end_of(span)


def test_silence_needs_a_reason() -> None:
    with pytest.raises(ActRefused, match="no reason"):
        silence(reason="  ")


def test_silence_that_is_over_cannot_be_ended() -> None:
    made = silence(until=timezone.now() - timedelta(seconds=1))

    assert acts.unsilence(made.pk, who=ADA) is None


def test_reason_is_written_without_what_postgresql_cannot_store() -> None:
    made = silence("f\0", reason="why\0")

    assert (made.fingerprint, made.reason) == ("f\\x00", "why\\x00")
