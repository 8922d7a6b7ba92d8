"""The statistics of a figure: medians, ranges and quartiles of runs, quantiles of waits, ratios pair by pair."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.records import Record


@dataclass(frozen=True, slots=True)
class Spread:
    """Summary of the runs of one figure."""

    median: float
    lowest: float
    lower_quartile: float
    upper_quartile: float
    highest: float
    runs: int

    def as_dict(self) -> dict[str, float]:
        """Return it for JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Summarise the runs of one figure.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no run has given this figure; run the benchmark again")
    lower, middle, upper = quartiles(values)
    return Spread(middle, min(values), lower, upper, max(values), len(values))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile, by linear interpolation."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share (0 … 1) of the values does not exceed."""
    ordered = sorted(values)
    whole = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(int(whole) - 1, 0)]


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Divide run by run, because both of a pair ran under the same conditions; leave out pairs with a failed run."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if mine is not None and other]


def waits(prefix: str, records: Sequence[Record]) -> dict[str, float]:
    """Return p50, p95, p99 and maximum of the waits, in ms, as figures."""
    waited = [record.waited_ms for record in records]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {f"{prefix}_{name}_ms": quantile(waited, share) for name, share in shares.items()}


def drain_rate(records: Sequence[Record]) -> float:
    """Return tasks a second while everything ran: from the later of "every worker has started a task" and the first
    fifth of the starts, to the last start.
    """
    starts = sorted(record.started_s for record in records)
    first_of_each: dict[int, float] = {}
    for record in records:
        first_of_each[record.worker] = min(record.started_s, first_of_each.get(record.worker, record.started_s))
    since_s = max(starts[len(starts) // 5], *first_of_each.values())
    counted = sum(start > since_s for start in starts)
    return counted / (starts[-1] - since_s) if counted else 0.0
