"""How fast are tasks enqueued, one by one and in bulk, and what does a task cost the server in time and memory?"""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import EVERYONE, Peer


def measure(bench: Bench, peer: Peer) -> Figures:
    """Enqueue without a running worker."""
    figures = one_by_one(bench, peer)
    if peer.bulk:
        figures |= bulk(bench, peer)
    return figures


def one_by_one(bench: Bench, peer: Peer) -> Figures:
    """Enqueue in a loop, on one connection."""
    count = bench.count(10_000, least=200)
    figures: Figures = {}
    with bench.stage(peer) as stage:
        stage.sender.one_by_one(100)  # warm-up: opens connections, loads scripts, declares queues
        empty = stage.server.usage()
        with stage.metered("enqueue", count, figures):
            figures["enqueue_per_s"] = count / stage.sender.one_by_one(count)
        if peer.on_server:
            figures["queued_bytes"] = stage.server.usage().since(empty).used_bytes / count
    return figures


def bulk(bench: Bench, peer: Peer) -> Figures:
    """Enqueue everything with one call of the library."""
    count = bench.count(10_000, least=200)
    figures: Figures = {}
    with bench.stage(peer) as stage:
        stage.sender.bulk(100)
        with stage.metered("enqueue_bulk", count, figures):
            figures["enqueue_bulk_per_s"] = count / stage.sender.bulk(count)
    return figures


# These differ from another peer only in their workers, so their enqueuing is the same.
WORKERS_ONLY = {"dramatiq-64", "dramatiq-512", "celery-threads", "rq", "arq-fast"}
SENDERS = tuple(peer for peer in EVERYONE if peer.name not in WORKERS_ONLY)

BENCHMARK = Benchmark("enqueue", "What does enqueueing cost, in time and memory?", measure, SENDERS)
