"""How fast are tasks enqueued, one by one and in bulk, and what does one cost the server in time and memory?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import PEERS, Peer


def measure(bench: Bench, peer: Peer) -> Figures:
    """Enqueue with no worker beside it."""
    figures = one_by_one(bench, peer)
    if peer.bulk:
        figures |= bulk(bench, peer)
    return figures


def one_by_one(bench: Bench, peer: Peer) -> Figures:
    """Enqueue in a loop, on one connection."""
    count = bench.count(10_000, least=200)
    with bench.stage(peer) as stage:
        stage.sender.one_by_one(100)  # connections, scripts and queues are there after these
        before = stage.server.usage()
        took_s = stage.sender.one_by_one(count)
        used = stage.server.usage().since(before)
    return {
        "enqueue_per_s": count / took_s,
        "enqueue_server_us_per_task": used.cpu_s * 1e6 / count,
        "enqueue_commands_per_task": used.commands / count,
        "queued_bytes": used.used_bytes / count,
    }


def bulk(bench: Bench, peer: Peer) -> Figures:
    """Enqueue everything with one call of the library."""
    count = bench.count(10_000, least=200)
    with bench.stage(peer) as stage:
        stage.sender.bulk(100)
        before = stage.server.usage()
        took_s = stage.sender.bulk(count)
        used = stage.server.usage().since(before)
    return {"enqueue_bulk_per_s": count / took_s, "enqueue_bulk_server_us_per_task": used.cpu_s * 1e6 / count}


BENCHMARK = Benchmark("enqueue", "What does enqueueing cost, in time and memory?", measure, tuple(PEERS.values()))
