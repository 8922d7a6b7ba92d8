"""A child that is to be replaced, and does not come to its end in peace."""

from __future__ import annotations

import os
import signal

from tests.integration.workers.bench.actors import ENDED
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


def test_a_child_that_crashes_while_it_is_replaced_counts_as_a_crash(bench: Bench) -> None:
    bench.start("runpool", "urgent", settings="aging_settings")
    bench.wait_for_log("pool urgent: ready")
    long = bench.send("urgent", ms=60_000)
    first = wait_for(lambda: bench.started(long))
    for _ in range(200):
        bench.send("urgent", ms=5)
    wait_for(lambda: bench.client.llen(ENDED) == 200)

    def takes_nothing() -> bool:
        tokens = [bench.send("urgent") for _ in range(8)]
        ends = [wait_for(lambda token=token: bench.ended(token)) for token in tokens]  # type: ignore[misc]
        return all(end["pid"] != first["pid"] for end in ends)

    wait_for(takes_nothing)

    os.kill(first["pid"], signal.SIGKILL)

    again = wait_for(lambda: len([note for note in bench.notes("bench:started") if note["token"] == long]) == 2)
    report = wait_for(lambda: (found := bench.report("urgent")) and "SIGKILL" in found.restarts and found)
    assert again
    assert report.restarts["SIGKILL"] == 1, "successors may have been replaced as well, on purpose"
