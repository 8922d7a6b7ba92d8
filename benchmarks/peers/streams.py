"""dramatiq-redis-streams, a third-party broker for Dramatiq, from a checkout of its sources."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.environ["BENCH_STREAMS_CHECKOUT"] + "/src")

from dramatiq_redis_streams import StreamsBroker

from benchmarks.peers.on_dramatiq import OnDramatiq

adapter = OnDramatiq(StreamsBroker(url=os.environ["BENCH_URL"]), "streams")
