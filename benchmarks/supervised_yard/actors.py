"""The task of :mod:`benchmarks.records` in a pool's children."""

import dramatiq

from benchmarks.peers.on_dramatiq import LANES
from benchmarks.records import run

work = dramatiq.actor(run, actor_name="work", queue_name=LANES[0])
