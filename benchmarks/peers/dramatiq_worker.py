"""Dramatiq's own worker around a broker, the same for stock Dramatiq and for Switchyard.

python -m benchmarks.peers.dramatiq_worker ADAPTER SLOTS
"""

import gc
import os
import signal
import sys
import threading

if os.environ.get("BENCH_GEVENT"):
    from gevent import monkey

    monkey.patch_all()

from dramatiq import Worker

from benchmarks.peers.loading import load
from benchmarks.peers.on_dramatiq import LANES

if __name__ == "__main__":
    broker = load(sys.argv[1]).broker
    queues = set(os.environ.get("BENCH_QUEUES", "").split()) or set(LANES)
    gc.collect()
    gc.freeze()  # as pools do before they start children: a full collection would go through all loaded code
    broker.emit_after("process_boot")
    worker = Worker(broker, queues=queues, worker_threads=int(sys.argv[2]))
    worker.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    worker.stop(timeout=5_000)
