"""Beats of supervisors that did not end in order."""

from __future__ import annotations

import redis

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.pool_reports import SILENT_KEPT_MS, PoolReports, SilentSupervisor

NOW = 1_800_000_000_000


def test_a_supervisor_that_starts_forgets_those_that_are_silent_for_long(valkey: redis.Redis) -> None:
    keys = Keys()
    old, lately = "urgent:a:1", "urgent:b:2"
    beats = {old: NOW - SILENT_KEPT_MS - 1, lately: NOW - SILENT_KEPT_MS, "written by hand": 7}
    valkey.hset(keys.pool_beats(), mapping=beats)  # type: ignore[arg-type]
    found = PoolReports(RedisCalls(valkey), keys).read_beats(NOW)

    assert valkey.hkeys(keys.pool_beats()) == [lately.encode()]
    assert found == [SilentSupervisor("urgent", "b", 2, NOW - SILENT_KEPT_MS)]
