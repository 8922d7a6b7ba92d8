"""Every benchmark, in the order in which they run."""

from benchmarks import (
    backlog,
    cluster,
    concurrency,
    distance,
    drain,
    enqueue,
    greenlets,
    group,
    growth,
    history,
    idle,
    later,
    limits,
    long_drain,
    pages,
    rabbitmq,
    rabbitmq_start,
    recovery,
    steady,
    storm,
    submit,
    supervised,
    urgent,
)
from benchmarks.bench import Benchmark

_MODULES = (
    enqueue,
    drain,
    long_drain,
    idle,
    steady,
    recovery,
    backlog,
    growth,
    history,
    later,
    greenlets,
    storm,
    urgent,
    limits,
    submit,
    pages,
    distance,
    group,
    concurrency,
    supervised,
    rabbitmq,
    rabbitmq_start,
    cluster,
)
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (*(module.BENCHMARK for module in _MODULES), growth.CROWD)
}
