"""Libraries that are measured side by side, and their requirements. Standard library only: all environments import it.

A peer is an adapter, a module of this package, under one configuration. An adapter has ``enqueue(task)``, plain or
async; ``enqueue_many(tasks)`` if the library has it; ``start()`` if its sender must connect first; and
``worker_command(slots)``, the arguments of its interpreter that start a worker of so many tasks at once.
"""

from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Peer:
    """One library under one configuration.

    Args:
        adapter: Module of this package.
        title: Name in tables.
        environment: Variables that make the configuration.
        backlog: Tasks that it drains in a few seconds.
        keeps_work: A task stays on the server until it is done, so that a killed worker loses none.
        bulk: The library enqueues many at once.
        language: What its workers are written in.
        needs: What must be on the machine.
        whole_stack: Carries everything that Switchyard puts around a task.
        keeps_history: ``manage.py switchyard runhistory`` moves its ended jobs into a database meanwhile.
    """

    name: str
    adapter: str
    title: str
    environment: dict[str, str] = field(default_factory=dict)
    backlog: int = 10_000
    keeps_work: bool = True
    bulk: bool = False
    language: Literal["python", "node"] = "python"
    needs: Literal["", "postgres", "node", "rabbitmq"] = ""
    whole_stack: bool = False
    keeps_history: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is Switchyard under one of its configurations."""
        return self.adapter == "switchyard"

    @property
    def on_server(self) -> bool:
        """Whether its tasks wait on the Redis or Valkey server, so that the server's statistics include their cost."""
        return self.needs not in ("postgres", "rabbitmq")


STACK = Peer(
    "switchyard-stack",
    "switchyard",
    "Switchyard, whole stack",
    {"BENCH_STACK": "1"},
    backlog=20_000,
    bulk=True,
    whole_stack=True,
)
OURS = (Peer("switchyard", "switchyard", "Switchyard, Dramatiq's default middleware", backlog=40_000, bulk=True), STACK)
# The same under runpool instead of Dramatiq's own worker, to measure the supervisor's cost.
SUPERVISED = replace(
    STACK,
    name="switchyard-pool",
    title="Switchyard, whole stack, under its supervisor",
    environment={
        "BENCH_STACK": "1",
        "BENCH_SUPERVISED": "1",
        "DJANGO_SETTINGS_MODULE": "benchmarks.supervised_yard.settings",
    },
)
# The same as a small yard: urgent and slow work in one child, with schedules and history beside it.
SMALL_SLOTS = 8
SMALL = replace(
    SUPERVISED,
    name="switchyard-small",
    title="Switchyard, a small yard",
    environment=SUPERVISED.environment | {"BENCH_SMALL": str(SMALL_SLOTS)},
)
# The same while runhistory moves what has ended into a database.
HISTORY = replace(
    STACK, name="switchyard-history", title="Switchyard, whole stack, its history written meanwhile", keeps_history=True
)
# The same with traces, one job in a hundred sampled.
TRACED = replace(
    STACK,
    name="switchyard-traced",
    title="Switchyard, whole stack, traces at 1 %",
    environment=STACK.environment
    | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
)
STOCK = Peer("dramatiq", "dramatiq", "Dramatiq")
TUNED = (
    Peer("dramatiq-64", "dramatiq", "Dramatiq, prefetch 64", {"dramatiq_queue_prefetch": "64"}, backlog=15_000),
    Peer("dramatiq-512", "dramatiq", "Dramatiq, prefetch 512", {"dramatiq_queue_prefetch": "512"}, backlog=15_000),
)
OTHERS = (
    Peer("celery-prefork", "celery", "Celery, prefork, acks_late", {"BENCH_POOL": "prefork"}, backlog=5_000),
    Peer("celery-threads", "celery", "Celery, threads, acks_late", {"BENCH_POOL": "threads"}, backlog=5_000),
    Peer("rq-simple", "rq", "RQ, SimpleWorker", {"BENCH_WORKER_CLASS": "rq.SimpleWorker"}, backlog=3_000, bulk=True),
    Peer("rq", "rq", "RQ, Worker (fork per job)", {"BENCH_WORKER_CLASS": "rq.Worker"}, backlog=600, bulk=True),
    Peer("huey", "huey", "Huey, threads", keeps_work=False),
    Peer("arq", "arq", "arq", backlog=1_000),
    Peer("arq-fast", "arq", "arq, poll_delay 0.02 s", {"BENCH_POLL_DELAY_S": "0.02"}, backlog=5_000),
    Peer("taskiq-list", "taskiq", "Taskiq, list", {"BENCH_KIND": "list"}, keeps_work=False),
    Peer("taskiq-stream", "taskiq", "Taskiq, stream", {"BENCH_KIND": "stream"}),
    Peer("streaq", "streaq", "streaq", bulk=True),
    Peer("procrastinate", "procrastinate", "Procrastinate", backlog=2_000, bulk=True, needs="postgres"),
    Peer("bullmq", "bullmq", "BullMQ", backlog=20_000, bulk=True, language="node", needs="node"),
)
# On RabbitMQ: ours, and stock Dramatiq configured alike (quorum queues, confirms) and with its defaults.
ON_RABBITMQ = (
    Peer("switchyard-rabbitmq", "switchyard", "Switchyard, Dramatiq's default middleware", needs="rabbitmq"),
    Peer(
        "switchyard-stack-rabbitmq",
        "switchyard",
        "Switchyard, whole stack",
        {"BENCH_STACK": "1"},
        needs="rabbitmq",
        whole_stack=True,
    ),
    Peer(
        "dramatiq-rabbitmq", "dramatiq_rabbitmq", "Dramatiq, configured alike", {"BENCH_QUORUM": "1"}, needs="rabbitmq"
    ),
    Peer("dramatiq-rabbitmq-default", "dramatiq_rabbitmq", "Dramatiq, its defaults", needs="rabbitmq"),
)
# Not a peer, but their common basis: shows the machine's share of a wait.
RAW_MOVE = Peer("raw-move", "raw_move", "a raw blocking move")
EVERYONE = (*OURS, STOCK, *TUNED, *OTHERS)
PEERS = {peer.name: peer for peer in (*EVERYONE, SUPERVISED, SMALL, HISTORY, TRACED, *ON_RABBITMQ, RAW_MOVE)}
