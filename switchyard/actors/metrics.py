"""Figures of an actor from the metrics of the workers on this machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial

from switchyard.conf import switchyard_settings
from switchyard.console.formatting import duration
from switchyard.middleware.metrics import BUCKETS_S
from switchyard.operations.metrics_workers import WorkerMetrics

DURATION, WAIT, ENDED = (
    "switchyard_message_duration_seconds", "switchyard_message_wait_seconds", "switchyard_messages",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a histogram in ms, each the upper bound of its bucket; ``None`` beyond the last bucket."""

    count: int
    p50_ms: float | None
    p95_ms: float | None

    @property
    def median(self) -> str:
        return _at_most(self.p50_ms)

    @property
    def most(self) -> str:
        return _at_most(self.p95_ms)


@dataclass(frozen=True, slots=True)
class ActorMetrics:
    """Attempts of one actor on this machine, since its metrics folder was emptied; most frequent outcome first."""

    outcomes: tuple[tuple[str, int], ...]
    run: Percentiles | None
    wait: Percentiles | None

    @property
    def attempts(self) -> int:
        return sum(count for _, count in self.outcomes)


def of_this_machine(actor: str) -> ActorMetrics:
    """Return an actor's figures, summed over lanes and pools. Attempts beyond 500 actors are counted as "other"."""
    return all_of_this_machine().get(actor, ActorMetrics((), None, None))


def all_of_this_machine() -> dict[str, ActorMetrics]:
    """Return the figures of every actor that has run here, by its name."""
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    buckets: dict[str, defaultdict[str, defaultdict[float, float]]] = {
        DURATION: defaultdict(partial(defaultdict, float)),
        WAIT: defaultdict(partial(defaultdict, float)),
    }
    for family in WorkerMetrics(switchyard_settings().metrics_dir).collect():
        for sample in family.samples if family.name in (DURATION, WAIT, ENDED) else ():
            actor = sample.labels.get("actor", "")
            if family.name == ENDED and sample.name.endswith("_total") and sample.value:
                outcomes[actor][sample.labels["outcome"]] += int(sample.value)
            elif sample.name.endswith("_bucket"):
                buckets[family.name][actor][float(sample.labels["le"])] += sample.value
    return {
        actor: ActorMetrics(
            tuple(counted.most_common()), _spread(buckets[DURATION][actor]), _spread(buckets[WAIT][actor])
        )
        for actor, counted in outcomes.items()
    }


def _spread(buckets: dict[float, float]) -> Percentiles | None:
    bounds = sorted(buckets)
    count = int(buckets[bounds[-1]]) if bounds else 0
    if not count:
        return None

    def percentile(share: float) -> float | None:
        bound = next(each for each in bounds if buckets[each] >= share * count)
        return None if bound == float("inf") else bound * 1_000

    return Percentiles(count, percentile(0.5), percentile(0.95))


def _at_most(ms: float | None) -> str:
    return f"over {duration(BUCKETS_S[-1] * 1_000)}" if ms is None else f"≤ {duration(ms)}"
