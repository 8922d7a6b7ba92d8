"""The count of an alert on a page is that of now, not that of its last message."""

from __future__ import annotations

import pytest

from switchyard.alerts.intake import write_alert
from switchyard.alerts.notice import recent
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.alert_groups import AlertFact
from tests.factories.brokers import broker_without_server
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
FACT = AlertFact("f00d", "dead_letter", "deliver_webhook gave up", "", "webhook", "deliver_webhook", now_ms())


def test_alerts_since_the_last_message_are_counted(facilities: Facilities) -> None:
    facilities.alerts.raise_(FACT)
    [claimed] = facilities.alerts.claim_due()
    facilities.alerts.settle(write_alert(claimed, ()))
    before = now_ms()
    wait_for(lambda: now_ms() > before)
    for _ in range(299):
        facilities.alerts.raise_(FACT)

    [alert] = recent()
    assert alert.count == 300
    assert alert.last_at > datetime_of(before), "the last of them, not the last of the message"


def test_without_the_broker_the_count_is_that_of_the_last_message(facilities: Facilities) -> None:
    facilities.alerts.raise_(FACT)
    [claimed] = facilities.alerts.claim_due()
    write_alert(claimed, ())
    with broker_without_server():
        assert [alert.count for alert in recent()] == [1]
