"""Grouping of pools under parents below the common one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.conf import settings

from switchyard.workers import pool_group

WEBHOOK, RETRIES, URGENT = (settings.SWITCHYARD.topology.pool(name) for name in ("webhook", "webhook-retry", "urgent"))


def test_gevent_pools_share_a_parent_and_begin_first() -> None:
    assert pool_group._parts([URGENT, WEBHOOK, RETRIES]) == ((WEBHOOK, RETRIES), (URGENT,))


def test_a_single_gevent_pool_is_executed_below_its_own_supervisor() -> None:
    assert pool_group._parts([URGENT, WEBHOOK]) == ((WEBHOOK,), (URGENT,))


def test_below_the_shared_parent_each_has_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_group, "is_patched", lambda: True)

    assert pool_group._parts([WEBHOOK, RETRIES]) == ((WEBHOOK,), (RETRIES,))


def test_where_the_kernel_ends_no_orphans_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    threads = replace(URGENT, name="other")

    assert pool_group._parts([WEBHOOK, threads, RETRIES]) == ((WEBHOOK,), (RETRIES,), (threads,))
