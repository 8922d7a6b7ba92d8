"""Pause before Dramatiq's worker starts a consumer again that lost its connection."""

from __future__ import annotations

from typing import Final

import dramatiq.worker

from switchyard.addon import addon_for
from switchyard.broker.redis.sentinel_url import is_sentinel_url
from switchyard.conf import switchyard_settings

# A call rides out 2 s and a failover takes longer: Dramatiq's pause of 3 s would outlast the new master's start.
FAILOVER_PAUSE_S: Final = 1.0


def restart_soon() -> None:
    """Shorten the pause where a replica takes over from a master that is down; elsewhere Dramatiq's remains."""
    url = switchyard_settings().broker_url
    addon = addon_for(url.partition("://")[0])
    if is_sentinel_url(url) or (addon is not None and addon.fails_over):
        pause_s = min(dramatiq.worker.CONSUMER_RESTART_DELAY_SECS, FAILOVER_PAUSE_S)
        dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = pause_s
