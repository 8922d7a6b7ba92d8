"""Alerts are resolved once their letters are triaged or their cause has ended, and open again when it returns."""

from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.db import DatabaseError
from django.utils import timezone
from msgspec.structs import replace

from switchyard.alerts import intake, notice, sending
from switchyard.alerts.intake import notice_of, write_alert
from switchyard.alerts.models import Alert
from switchyard.alerts.notice import recent
from switchyard.alerts.sending import CALM_S, BrokerAlerts, LastingAlerts
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.dead_letters import acts
from switchyard.schedules.runner import reconcile_letters
from tests.chaos.load import let_pass
from tests.factories.alerts import make_alert
from tests.factories.brokers import broker_without_server
from tests.factories.letters import keep, letter
from tests.integration.alerts.conftest import fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
FACT = AlertFact("f00d", "dead_letter", "deliver_webhook gave up", "", "webhook", "deliver_webhook", now_ms())


@pytest.fixture
def alert(groups):
    groups.raise_(fact())
    return dispatched()


def dispatched() -> Alert:
    with with_alert_urls("log:"):
        sending.dispatch_due()
    return Alert.objects.get()


def age(alert: Alert, **span: float) -> None:
    Alert.objects.filter(pk=alert.pk).update(last_at=timezone.now() - timedelta(**span))


def test_alert_is_resolved_once_every_letter_of_its_group_is_triaged(alert, facilities):
    keep(letter(id="a", fingerprint=alert.fingerprint))
    keep(letter(id="b", fingerprint=alert.fingerprint))
    age(alert, minutes=5)

    acts.act_on("a", "discard", by="ada")
    reconcile_letters()
    alert.refresh_from_db()
    before = alert.state
    acts.act_on("b", "discard", by="ada")
    reconcile_letters()

    alert.refresh_from_db()
    assert (before, alert.state, alert.resolved_by) == ("open", "resolved", "")
    assert alert.resolved_at is not None


def test_nothing_is_resolved_while_its_letter_has_no_row_or_the_broker_is_away(alert):
    reconcile_letters()
    alert.refresh_from_db()
    without_row = alert.state
    age(alert, minutes=5)

    with broker_without_server(), pytest.raises(BrokerError):
        reconcile_letters()

    alert.refresh_from_db()
    assert (without_row, alert.state) == ("open", "open")


def test_resolved_alert_whose_cause_returns_is_open_again(alert, groups):
    notice.acknowledge(alert.pk, by="ada")
    assert intake.resolve(alert.pk, by="ada")
    assert not intake.resolve(alert.pk, by="bob")

    Alert.objects.update(resolved_at=timezone.now() - timedelta(seconds=1))  # the broker counts in milliseconds
    groups.raise_(fact())
    wait_for(lambda: dispatched().state == "open")

    alert.refresh_from_db()
    assert (alert.resolved_by, alert.resolved_at, alert.acknowledged_by) == ("", None, "")


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_comes_after_a_resolution_is_told_at_once(facilities, by_hand):
    facilities.alerts.raise_(fact())  # within a window of ten minutes
    alert = dispatched()
    age(alert, minutes=5)

    ended = intake.resolve(alert.pk, by="ada") if by_hand else intake.resolve_triaged(lambda names: [])
    let_pass(0.01)  # the broker counts in milliseconds
    facilities.alerts.raise_(fact())
    again = dispatched()

    assert (ended, again.pk, again.state) == (1, alert.pk, "open")
    told = again.deliveries.exclude(reported=0).values_list("state", "count", "reported")
    assert list(told) == [("sent", 2, 1)]


def test_what_was_not_sent_before_a_resolution_holds_up_nothing(facilities, valkey):
    for _ in range(2):
        facilities.alerts.raise_(fact())
        alert = dispatched()
    age(alert, minutes=5)
    valkey.hincrby(Keys().alert_group(alert.fingerprint), "last_at", -300_000)

    intake.resolve_triaged(lambda names: [])
    dispatched()
    facilities.alerts.raise_(fact())
    with with_alert_urls("log:"):
        sending.dispatch_due()

    assert list(Alert.objects.order_by("pk").values_list("state", "count")) == [("resolved", 1), ("open", 1)]


def test_alerts_of_many_causes_are_resolved_in_steps(monkeypatch):
    monkeypatch.setattr(intake, "FINGERPRINTS_AT_ONCE", 3)
    long_ago = timezone.now() - timedelta(hours=1)
    for number in range(10):
        make_alert(fingerprint=f"cause-{number}", first_at=long_ago, last_at=long_ago)

    resolved = intake.resolve_triaged(lambda fingerprints: [name for name in fingerprints if name == "cause-4"])

    assert resolved == 9
    assert Alert.objects.get(state="open").fingerprint == "cause-4"


def test_alert_of_the_server_is_resolved_when_its_finding_is_gone(facilities, valkey):
    now_s = 0.0
    watch = BrokerAlerts(lambda: now_s)
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        watch.check()
        before = dispatched().state
    finally:
        valkey.config_set("maxmemory-policy", "noeviction")
        valkey.delete(*(facilities.records.keys.queue(queue.name).refused for queue in facilities.yard.queues))
    watch.check()
    gone = Alert.objects.get().state
    now_s = CALM_S
    watch.check()

    after = dispatched()
    assert (before, gone, after.state, after.fingerprint) == ("open", "open", "resolved", "broker-evicting")
    assert list(after.deliveries.values_list("state", "count", "reported")) == [("sent", 1, 0), ("sent", 1, 1)]


def test_what_lasts_is_raised_once_and_each_time_that_it_returns_after_its_end(groups):
    clock, found = Mock(return_value=0), [(replace(fact(), kind="finding"), 30.0)]
    lasting = LastingAlerts("finding", clock)

    def sent(*times_s: int, present: bool = True) -> list[int]:
        """Look at some times, and return how many messages were sent at each."""
        messages = []
        for clock.return_value in times_s:
            lasting.note(found if present else ())
            lasting.resolve()
            with with_alert_urls("log:"):
                messages.append(sending.dispatch_due())
        return messages

    short = [*sent(0, 5), *sent(10, 20, present=False), *sent(25, 30)]
    raised = [*sent(35, 45, 55, 65), *sent(70, present=False), *sent(75)]
    another_leader = LastingAlerts("finding", clock)
    another_leader.note((each, 0.0) for each, _ in found)
    ended = [*sent(90, 95, present=False), *sent(150, 160, 170, 180)]

    assert (short, raised, ended) == ([0] * 6, [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1])
    assert list(Alert.objects.order_by("pk").values_list("state", "count")) == [("resolved", 1), ("open", 1)]
    assert "ended" in notice_of(Alert.objects.earliest("pk").deliveries.latest("pk")).text


def test_what_was_sent_without_database_is_resolved_later(groups, monkeypatch):
    now_s = 0.0
    lasting = LastingAlerts("finding", lambda: now_s)
    lasting.note([(replace(fact(), kind="finding"), 0.0)])
    with monkeypatch.context() as away:
        away.setattr(sending, "write_alert", Mock(side_effect=DatabaseError))
        with with_alert_urls("log:"):
            assert sending.dispatch_due() == 1
    now_s = CALM_S

    with with_alert_urls("log:"):
        lasting.note(())
        lasting.resolve()
        assert sending.dispatch_due() == 1

    assert Alert.objects.get().state == "resolved"


def test_alerts_since_the_last_message_are_counted_and_without_the_broker_those_of_it(facilities):
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
    with broker_without_server():
        assert [alert.count for alert in recent()] == [1]
