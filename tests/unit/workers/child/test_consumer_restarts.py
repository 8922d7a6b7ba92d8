"""Consumers start again soon where a replica takes over, and after Dramatiq's own pause elsewhere."""

from __future__ import annotations

from dataclasses import replace

import dramatiq.worker
import pytest

from switchyard.conf import switchyard_settings
from switchyard.workers.child import main

DRAMATIQ_S = 3.0


@pytest.mark.parametrize(
    ("url", "pause_s"),
    [("redis://valkey:6379/0", DRAMATIQ_S), ("redis+sentinel://one:26379,two:26379/mymaster/0", main.FAILOVER_PAUSE_S)],
)
def test_the_pause_is_short_where_a_replica_takes_over(
    url: str, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(switchyard_settings(), broker_url=url)
    monkeypatch.setattr(main, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", DRAMATIQ_S)

    main.restart_soon()

    assert pause_s == dramatiq.worker.CONSUMER_RESTART_DELAY_SECS
