"""A fault of the broker's server raises one alert, however often it is polled, also when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from switchyard.alerts.sending import BrokerAlerts
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.alert_groups import AlertGroup
from switchyard.long_running import Leadership

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(facilities: Facilities, valkey: redis.Redis) -> Iterator[redis.Redis]:
    """The broker's server, as it was configured afterwards."""
    yield valkey
    valkey.config_set("maxmemory", 0)
    valkey.config_set("maxmemory-policy", "noeviction")
    valkey.delete(*(facilities.records.keys.queue(queue.name).refused for queue in facilities.yard.queues))


def claimed(found: Facilities) -> list[AlertGroup]:
    return found.alerts.claim_due()


def test_an_evicting_policy_alerts_once_while_it_lasts_also_where_it_is_gone_for_a_moment(
    facilities: Facilities, server: redis.Redis
) -> None:
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


def test_an_emptied_keyspace_alerts(facilities: Facilities, server: redis.Redis) -> None:
    alerts = BrokerAlerts()
    alerts._watch.generation.prepare()
    alerts.check()
    server.flushdb()
    alerts.check()

    [group] = claimed(facilities)
    assert group.fingerprint == "broker-keyspace"


def test_a_full_server_still_takes_its_alert_and_the_schedulers_lease(
    facilities: Facilities, server: redis.Redis
) -> None:
    server.config_set("maxmemory", 1)

    BrokerAlerts().check()

    [group] = claimed(facilities)
    assert group.fingerprint == "broker-nearly_full"
    assert facilities.alerts.settle(group)
    assert Leadership(facilities.records.calls, facilities.records.keys).acquire_or_renew()
