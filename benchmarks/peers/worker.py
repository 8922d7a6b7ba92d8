"""Process that becomes a worker of one adapter.

python -m benchmarks.peers.worker ADAPTER SLOTS
"""

import os
import sys

from benchmarks.peers.loading import load

if __name__ == "__main__":
    name, slots = sys.argv[1], int(sys.argv[2])
    os.environ["BENCH_SLOTS"] = str(slots)  # for libraries that read it where the worker is declared
    os.execv(sys.executable, [sys.executable, *load(name).worker_command(slots)])
