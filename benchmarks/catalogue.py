"""Every benchmark, in the order in which they run."""

from __future__ import annotations

from benchmarks import drain, enqueue, idle, steady
from benchmarks.bench import Benchmark

_MODULES = (enqueue, drain, idle, steady)
BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
