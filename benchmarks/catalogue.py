"""Every benchmark, in the order in which they run."""

from __future__ import annotations

from benchmarks import drain, idle
from benchmarks.bench import Benchmark

BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in (drain, idle)}
