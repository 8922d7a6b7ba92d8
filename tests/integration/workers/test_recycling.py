"""Children that are replaced because they did enough or hold too much."""

from __future__ import annotations

import itertools

import psutil

from broker.interface import QueueStats
from broker.keys import Keys
from broker.stats import family_stats
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
from tests.waiting import wait_for


def stats(bench: Bench, queue: str) -> QueueStats:
    """Return how a queue stands."""
    return family_stats(bench.client, Keys().family(queue))


def test_children_are_replaced_by_count_and_nothing_runs_twice_or_waits(bench: Bench) -> None:
    pool = bench.start("runpool", "urgent", settings="aging_settings")
    bench.wait_for_log("pool urgent: ready")

    tokens = [bench.send("urgent", ms=10) for _ in range(800)]
    most = 0
    while bench.client.llen(ENDED) < 800:
        most = max(most, len(titles_below(pool.pid)))

    ends = bench.notes(ENDED)
    assert sorted(note["token"] for note in ends) == sorted(tokens)
    pids = [note["pid"] for note in ends]
    assert len(set(pids)) >= 3
    assert most <= 3
    at = sorted(note["at"] for note in ends)
    longest_s = max(later - earlier for earlier, later in itertools.pairwise(at))
    print(f"{len(set(pids))} children, longest time without an end {longest_s:.3f} s")
    assert longest_s < 0.5
    report = wait_for(lambda: (found := bench.report("urgent")) and found.restarts and found)
    assert set(report.restarts) == {"recycled"}


def test_a_leak_never_reaches_the_limit(bench: Bench) -> None:
    pool = bench.start("runpool", "slow", settings="aging_settings")
    bench.wait_for_log("pool slow: ready")

    tokens = [bench.send("slow", ms=5, how="leak") for _ in range(150)]
    largest = 0
    while bench.client.llen(ENDED) < 150:
        for title, pid in titles_below(pool.pid).items():
            if "child" in title and psutil.pid_exists(pid):
                largest = max(largest, psutil.Process(pid).memory_info().rss)

    assert sorted(note["token"] for note in bench.notes(STARTED)) == sorted(tokens)
    assert sorted(note["token"] for note in bench.notes(ENDED)) == sorted(tokens)
    print(f"largest child {largest / 1e6:.0f} MB")
    assert largest < 350e6


def test_a_task_that_takes_all_memory_fails_by_itself_where_it_is_alone(bench: Bench) -> None:
    bench.start("runpool", "slow", settings="aging_settings")
    bench.wait_for_log("pool slow: ready")

    bench.send("slow", how="gobble")

    wait_for(lambda: stats(bench, "slow").retry.scheduled == 1)
    bench.wait_for_log("retried")
    assert "killed" not in bench.log()


def test_a_child_over_its_memory_limit_is_killed_for_it_and_its_neighbour_runs_again(bench: Bench) -> None:
    bench.start("runpool", "webhook", settings="aging_settings")
    bench.wait_for_log("pool webhook: ready")
    neighbour = bench.send("webhook", ms=3_000)
    wait_for(lambda: bench.started(neighbour))

    glutton = bench.send("webhook", ms=100, how="gobble_slowly")

    bench.wait_for_log("MB, over its 350 MB; killed")
    wait_for(lambda: bench.ended(neighbour), 20)
    # Alone it fails by itself, or is killed twice more.
    wait_for(lambda: (found := stats(bench, "webhook")).retry.scheduled + found.dead == 1, 30)
    assert len([note for note in bench.notes(STARTED) if note["token"] == glutton]) >= 2
    report = wait_for(lambda: (found := bench.report("webhook")) and found.restarts and found)
    assert report.restarts["memory"] >= 1
