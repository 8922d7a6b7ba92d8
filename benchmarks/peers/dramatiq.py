"""Stock Dramatiq: its own Redis broker with default settings."""

from __future__ import annotations

import os

from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.on_dramatiq import OnDramatiq

adapter = OnDramatiq(RedisBroker(url=os.environ["BENCH_URL"]), "dramatiq")
