"""The keeper samples queues, folds minutes and stores hours, each once whatever is repeated."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.yard_facts import (
    AGE_MS,
    DEPTH,
    HOUR_MS,
    LATER,
    MINUTE_MS,
    SENT,
    SUCCEEDED,
    FactStore,
    actor_subject,
)
from switchyard.history import fact_keeper
from switchyard.history.fact_keeper import YEAR_HOURS, FactKeeper, hours_of, store_hour
from switchyard.history.models import FactHour
from switchyard.long_running import FACT_KEEPER

pytestmark = pytest.mark.usefixtures("database")


class ShiftedStore(FactStore):
    """Facts whose clock for folding and storing is ahead."""

    ahead_ms = 0

    def server_ms(self) -> int:
        return super().server_ms() + self.ahead_ms


@pytest.fixture
def store(facilities: Facilities) -> ShiftedStore:
    return ShiftedStore(facilities.records.calls, facilities.records.keys)


@pytest.fixture
def keeper(store: ShiftedStore) -> FactKeeper:
    return FactKeeper(store)


def test_sends_and_depth_are_sampled_by_actor_and_queue(
    facilities: Facilities, keeper: FactKeeper, store: FactStore
) -> None:
    broker = dramatiq.get_broker()

    @dramatiq.actor(actor_name="sampled", queue_name="default", broker=broker)
    def sampled() -> None:
        """Do nothing."""

    try:
        keeper.step()
        for _ in range(3):
            sampled.send()
        sampled.send_with_options(delay=20 * 60_000)
        keeper.step()
        keeper.step()
    finally:
        del broker.actors["sampled"]

    found = store.recent(store.server_ms())
    mine = yard_facts.merged(of.get(actor_subject("sampled"), {}) for _, of in found)
    queue = yard_facts.merged(of.get("q:default", {}) for _, of in found)
    assert mine == {SENT: 3, LATER + 4: 1}, "16 minutes or more later"
    assert (queue[DEPTH], queue[AGE_MS] >= 0) == (3, True)


def test_an_ended_hour_is_stored_once_and_old_ones_leave(
    keeper: FactKeeper, store: ShiftedStore, valkey: redis.Redis
) -> None:
    now = store.server_ms()
    hour = now // HOUR_MS
    key = Keys().facts_bucket(yard_facts.bucket_of(now))
    valkey.hset(key, mapping={f"{SUCCEEDED} {each}": 5 for each in ("a:mail", "d:web", "d:web example.com")})
    store_hour(hour - 80, {"a:mail": {SUCCEEDED: 1}})
    store_hour(hour - YEAR_HOURS - 90, {"a:mail": {SUCCEEDED: 1}})
    store.ahead_ms = 5 * MINUTE_MS  # its minute is closed
    store.fold(store.server_ms())
    store.ahead_ms = HOUR_MS + 2 * MINUTE_MS

    keeper.step()
    keeper.step()
    for _ in range(20):
        keeper.step()
    FactKeeper(store).step()

    assert hours_of(["a:mail"], [hour])["a:mail"] == {hour: {SUCCEEDED: 5}}
    assert sorted(hours_of(None, [hour])) == ["a:mail", "d:web"], "no hosts, of which there may be many in a year"
    assert FactHour.objects.filter(hour__lt=hour - YEAR_HOURS).count() == 0
    store_hour(hour, {"a:mail": {SUCCEEDED: 6}})
    assert hours_of(None, [hour])["a:mail"] == {hour: {SUCCEEDED: 6}}, "written again, not twice"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_ahead_costs_no_hour_and_no_minute(
    store: ShiftedStore, valkey: redis.Redis, restarted: bool
) -> None:
    now, keeper = store.server_ms(), FactKeeper(store)
    hour, ahead_ms = now // HOUR_MS, 3 * HOUR_MS
    store_hour(hour - 1, {"a:mail": {SUCCEEDED: 1}})
    for at in range(now, now + 4 * HOUR_MS, 5 * MINUTE_MS):  # three hours ahead for an hour
        store.ahead_ms = at - now + ahead_ms
        keeper.step()
    if restarted:
        valkey.delete(Keys().lock(FACT_KEEPER))
        keeper = FactKeeper(store)
    store.ahead_ms = 0
    valkey.hset(Keys().facts_bucket(yard_facts.bucket_of(now)), mapping={f"{SUCCEEDED} a:mail": 5})

    for minute in range(5, 70, 5):
        store.ahead_ms = minute * MINUTE_MS
        store.fold(store.server_ms())
        keeper.step()

    assert hours_of(["a:mail"], [hour])["a:mail"] == {hour: {SUCCEEDED: 5}}


def test_one_of_several_keepers_samples(facilities: Facilities, keeper: FactKeeper, monkeypatch: Any) -> None:
    keeper.step()
    seen: list[object] = []
    monkeypatch.setattr(fact_keeper, "readings", lambda stats: seen.append(stats) or ({}, {}))

    FactKeeper().step()
    assert not seen
    keeper.step()
    assert len(seen) == 1
