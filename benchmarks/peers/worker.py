"""Becomes a worker of one adapter.

python -m benchmarks.peers.worker ADAPTER SLOTS
"""

from __future__ import annotations

import importlib
import os
import sys

if __name__ == "__main__":
    os.environ["BENCH_SLOTS"] = sys.argv[2]  # for libraries that take it where the worker is declared
    adapter = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    os.execv(sys.executable, [sys.executable, *adapter.worker_command(int(sys.argv[2]))])
