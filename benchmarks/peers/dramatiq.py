"""Stock Dramatiq: its own Redis broker with default settings."""

import os

from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.on_dramatiq import OnDramatiq

adapter = OnDramatiq(RedisBroker(url=os.environ["BENCH_URL"]), "dramatiq")
