"""Targets of Switchyard as data, judged by ``bin/bench``."""

from dataclasses import dataclass

TRACED = "switchyard-traced"
OURS, STACK, HISTORY, STOCK = "switchyard", "switchyard-stack", "switchyard-history", "dramatiq"
POOL, SMALL = "switchyard-pool", "switchyard-small"
MEBIBYTE = 1024 * 1024

# Names for the best of a group by its median, resolved in ``benchmarks/judging.py``.
EVERY_PEER = "the best peer"
EVERY_PYTHON_PEER = "the best Python peer"
EVERY_KEEPING_PEER = "the best peer that keeps work until it is done"


@dataclass(frozen=True, slots=True)
class Limit:
    """Upper limit of a figure's median.

    Args:
        decides: Missed, it fails the run: it is far above what any machine needs.
    """

    figure: str
    peer: str
    at_most: float
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of one peer over one of another, run by run.

    Args:
        top, bottom: Figure and peer; the bottom's peer may be the best of a group.
        at_least, at_most: One of the two.
    """

    top: tuple[str, str]
    bottom: tuple[str, str]
    at_least: float | None = None
    at_most: float | None = None


Target = Limit | Ratio


def _over(figure: str, top: str, bottom: str, **bound: float) -> Ratio:
    return Ratio((figure, top), (figure, bottom), **bound)


TARGETS: tuple[Target, ...] = (
    _over("drain_1x8_per_s", OURS, STOCK, at_least=9),
    _over("drain_1x8_per_s", OURS, "dramatiq-64", at_least=3.5),
    _over("drain_1x8_per_s", OURS, "bullmq", at_least=1.2),
    _over("drain_1x8_per_s", OURS, EVERY_PEER, at_least=1),
    _over("drain_2x8_per_s", OURS, STOCK, at_least=8),
    _over("drain_2x8_per_s", OURS, "bullmq", at_least=2.5),
    _over("drain_1x8_per_s", STACK, OURS, at_least=0.6),
    _over("drain_2x8_per_s", STACK, OURS, at_least=0.6),
    _over("drain_1x8_per_s", HISTORY, OURS, at_least=0.6),
    _over("drain_2x8_per_s", HISTORY, OURS, at_least=0.6),
    _over("drain_1x8_per_s", TRACED, STACK, at_least=0.9),
    _over("drain_2x8_per_s", TRACED, STACK, at_least=0.9),
    _over("drain_1x8_per_s", STACK, EVERY_PYTHON_PEER, at_least=1),
    Ratio(("supervised_drain_per_s", POOL), ("unsupervised_drain_per_s", POOL), at_least=0.97),
    _over("rabbitmq_drain_per_s", "switchyard-rabbitmq", "dramatiq-rabbitmq", at_least=1),
    Ratio(
        ("rabbitmq_start_p50_ms", "switchyard-rabbitmq"),
        ("rabbitmq_start_alike_p50_ms", "switchyard-rabbitmq"),
        at_most=1,
    ),
    _over("enqueue_per_s", OURS, STOCK, at_least=1.2),
    _over("enqueue_per_s", STACK, OURS, at_least=0.85),
    _over("enqueue_per_s", OURS, EVERY_KEEPING_PEER, at_least=1),
    _over("enqueue_bulk_per_s", OURS, EVERY_PEER, at_least=5),
    Limit("idle_p50_ms", OURS, at_most=1.0),
    Limit("idle_p99_ms", OURS, at_most=2.0),
    _over("idle_p50_ms", STOCK, OURS, at_least=100),
    _over("idle_p50_ms", OURS, "raw-move", at_most=1.0 / 0.45),  # 1 ms, where a raw move takes 0.45 ms
    Limit("steady_p50_ms", OURS, at_most=0.5),
    Limit("steady_p99_ms", OURS, at_most=1.5),
    _over("steady_server_us_per_task", OURS, STOCK, at_most=1),
    Limit("storm_urgent_p99_ms", OURS, at_most=8),
    Limit("urgent_saturated_p99_ms", STACK, at_most=80, decides=True),
    Limit("urgent_saturated_p99_ms", SMALL, at_most=80, decides=True),
    *(
        Ratio((f"limits_{name}_per_s", STACK), ("limits_none_per_s", STACK), at_least=0.85)
        for name in ("fair", "fair_10000", "keys")
    ),
    _over("queued_bytes", OURS, STOCK, at_most=0.75),
    _over("queued_bytes", STACK, STOCK, at_most=0.75),
    _over("drain_1x8_server_us_per_task", OURS, STOCK, at_most=0.25),
    Limit("later_worker_growth_bytes", OURS, at_most=1 * MEBIBYTE),
    Limit("later_first_late_ms", OURS, at_most=50),
    Ratio(("backlog_1000000_enqueue_us", OURS), ("backlog_1000_enqueue_us", OURS), at_most=1.2),
    Ratio(("backlog_1000000_fetch_us", OURS), ("backlog_1000_fetch_us", OURS), at_most=1.2),
    Ratio(("greenlets_per_s", OURS), ("greenlets_ceiling_per_s", OURS), at_least=0.95),
    Limit("history_missing_rows", HISTORY, at_most=0),
    Limit("http_p50_ms", STACK, at_most=15),
    Limit("http_p99_ms", STACK, at_most=60),
    Limit("pages_slowest_p50_ms", STACK, at_most=300),
    Limit("room_workers_cpu_percent", STACK, at_most=3),
    Ratio(("distance_far_drain_per_s", OURS), ("distance_near_drain_per_s", OURS), at_least=0.7),
    Limit("distance_added_p50_ms", OURS, at_most=2.5),
    Ratio(("cluster_on_2_task_us", OURS), ("cluster_alone_task_us", OURS), at_most=1.05),
    Ratio(("cluster_on_2_task_us", STACK), ("cluster_alone_task_us", STACK), at_most=1.05),
    Ratio(("cluster_of_3_task_us", OURS), ("cluster_alone_task_us", OURS), at_most=1.05),
    Ratio(("cluster_of_3_task_us", STACK), ("cluster_alone_task_us", STACK), at_most=1.05),
    Limit("cluster_client_us", OURS, at_most=2),
)
