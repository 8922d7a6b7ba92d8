"""A fault of the broker's server raises one alert, also when it is full; one that is away is told without it."""

from itertools import count
from unittest.mock import Mock

import pytest
from django.db import DatabaseError

from switchyard.alerts import sending
from switchyard.alerts.models import Alert
from switchyard.alerts.sending import AFTER_S, CALM_S, AwayAlert, BrokerAlerts
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.alert_groups import AlertGroup
from switchyard.long_running import Leadership
from tests.factories.brokers import broker_without_server
from tests.unit.alerts.configuration import with_alert_urls

pytestmark = pytest.mark.django_db
AWAY = ServerFinding("away", "warning", "the server does not answer", "Check that it runs.")


@pytest.fixture
def server(facilities, valkey):
    """The broker's server, as it was configured afterwards."""
    yield valkey
    valkey.config_set("maxmemory", 0)
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.delete(*(facilities.records.keys.queue(queue.name).refused for queue in facilities.yard.queues))


def claimed(found: Facilities) -> list[AlertGroup]:
    return found.alerts.claim_due()


def test_an_evicting_policy_alerts_once_while_it_lasts_also_where_it_is_gone_for_a_moment(facilities, server):
    alerts = BrokerAlerts()
    server.config_set("maxmemory-policy", "allkeys-lru")
    for _ in range(3):
        alerts.check()

    [group] = claimed(facilities)
    assert (group.count, group.sample.kind, group.fingerprint) == (1, "broker", "broker-evicting")
    assert "allkeys-lru" in group.sample.title and "CONFIG SET" in group.sample.detail

    server.config_set("maxmemory-policy", "noeviction")
    alerts.check()
    server.config_set("maxmemory-policy", "allkeys-lru")
    alerts.check()
    facilities.alerts.settle(group)
    assert server.hget(facilities.records.keys.alert_group("broker-evicting"), "count") == b"1"


def test_an_emptied_keyspace_alerts(facilities, server):
    alerts = BrokerAlerts()
    alerts._watch.generation.prepare()
    alerts.check()
    server.flushdb()
    alerts.check()

    [group] = claimed(facilities)
    assert group.fingerprint == "broker-keyspace"


def test_a_full_server_takes_its_alert_and_the_schedulers_lease(facilities, server):
    server.config_set("maxmemory", 1)

    BrokerAlerts().check()

    [group] = claimed(facilities)
    assert group.fingerprint == "broker-nearly_full"
    assert facilities.alerts.settle(group)
    assert Leadership(facilities.records.calls, facilities.records.keys).acquire_or_renew()


@pytest.fixture
def away(monkeypatch):
    """The checks of the server find that it is away."""
    watch = Mock()
    watch.look.return_value.findings = [AWAY]
    monkeypatch.setattr(sending, "make_watch", lambda: watch)
    return watch


def look(alerts: AwayAlert, clock: Mock, *times_s: float) -> None:
    for clock.return_value in times_s:
        alerts.check()


def test_two_schedulers_tell_it_once_and_the_leader_resolves_it(facilities, away, receiver, monkeypatch):
    clock, minutes = Mock(return_value=0.0), count(30_000_000)
    monkeypatch.setattr(sending, "now_ms", lambda: next(minutes) * sending.ROUNDED_MS)
    one, other, leader = AwayAlert(clock), AwayAlert(clock), BrokerAlerts(clock)
    with with_alert_urls(receiver.url):
        with broker_without_server():
            look(one, clock, 0.0, AFTER_S - 1)
            early = len(receiver.bodies)
            look(other, clock, 0.0, AFTER_S)
            look(one, clock, AFTER_S, AFTER_S + 5)
        away.look.return_value.findings = []
        look(one, clock, AFTER_S + CALM_S)
        for clock.return_value in (AFTER_S + CALM_S, AFTER_S + 2 * CALM_S):
            leader.check()
        sending.dispatch_due()

    assert early == 0
    assert [body["state"] for body in receiver.bodies] == ["open", "resolved"]
    assert receiver.bodies[0]["title"].startswith("The broker does not answer")
    assert "Check that it runs." in receiver.bodies[0]["text"]


def test_without_a_database_it_is_sent_once_and_has_its_row_later(facilities, away, receiver, monkeypatch):
    clock = Mock(return_value=0.0)
    alerts = AwayAlert(clock)
    with with_alert_urls(receiver.url):
        with monkeypatch.context() as gone:
            gone.setattr(sending, "write_alert", Mock(side_effect=DatabaseError))
            look(alerts, clock, 0.0, AFTER_S, AFTER_S + 5)
            first = len(receiver.bodies)
        look(alerts, clock, AFTER_S + 10, AFTER_S + 15)
        away.look.return_value.findings = []
        look(alerts, clock, AFTER_S + 20)

    assert (first, len(receiver.bodies)) == (1, 1)
    assert Alert.objects.get().fingerprint == "broker-away"


def test_a_short_absence_that_comes_again_is_not_told(facilities, away, receiver):
    clock = Mock(return_value=0.0)
    alerts = AwayAlert(clock)
    with with_alert_urls(receiver.url):
        look(alerts, clock, 0.0, AFTER_S - 1)
        away.look.return_value.findings = []
        look(alerts, clock, AFTER_S)
        away.look.return_value.findings = [AWAY]
        look(alerts, clock, AFTER_S + 1, AFTER_S + 2)

    assert receiver.bodies == []
