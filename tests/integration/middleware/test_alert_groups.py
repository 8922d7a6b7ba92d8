"""Many failures with one cause are few alerts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.alert_groups import CLAIM, AlertFact, AlertGroups
from tests.chaos.fault_proxy import FaultProxy
from tests.waiting import wait_for


def test_a_claim_whose_answer_is_lost_is_made_all_the_same(valkey: Any, valkey_url: str) -> None:
    alerts = AlertGroups(RedisCalls(valkey), Keys("lost"))
    valkey.script_load(CLAIM.text)
    alerts.raise_(_fact())

    with FaultProxy(urlsplit(valkey_url).port or 0) as proxy, connect(proxy.url) as client:
        proxy.drop_reply(of=b"EVALSHA")
        [claimed] = AlertGroups(RedisCalls(client), Keys("lost")).claim_due()

    assert claimed.count == 1
    assert alerts.claim_due() == [], "it is claimed once"
    assert alerts.settle(claimed)


def test_a_group_is_sent_at_once_and_again_as_a_digest_when_it_grew(valkey: Any) -> None:
    alerts = AlertGroups(RedisCalls(valkey), Keys("digest"), window_ms=150)
    alerts.raise_(_fact())

    first = alerts.claim_due()
    assert alerts.claim_due() == [], "a claimed group is claimed by one"
    assert alerts.settle(first[0])
    alerts.raise_(_fact())
    alerts.raise_(_fact())
    assert alerts.claim_due() == [], "the window has not ended"
    digest = wait_for(alerts.claim_due)

    assert (first[0].count, first[0].sent_count) == (1, 0)
    assert (digest[0].count, digest[0].sent_count) == (3, 1)
    assert alerts.settle(digest[0])
    wait_for(lambda: alerts.claim_due() == [] and not valkey.keys("digest:*"), what="a quiet group is forgotten")


def _fact() -> AlertFact:
    return AlertFact("f", "dead_letter", "title", "detail", "work", "actor", 0)
