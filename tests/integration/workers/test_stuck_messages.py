"""A message that a child holds and that nothing runs: its child is replaced, and the message runs."""

from __future__ import annotations

from tests.integration.workers.bench.losing import TO_LOSE
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


def test_a_child_that_holds_a_message_which_no_thread_runs_is_replaced(bench: Bench) -> None:
    bench.environment["SWITCHYARD_CHILD_MIDDLEWARE"] = "tests.integration.workers.bench.losing.Losing"
    bench.start("runpools", "urgent", "webhook", "--no-history", settings="short_settings")
    bench.wait_for_log("pools: all ready")
    for queue in ("urgent", "webhook"):
        first = bench.send(queue)
        pid = wait_for(lambda token=first: bench.ended(token))["pid"]  # type: ignore[misc]

        bench.client.set(TO_LOSE, 1)
        lost = bench.send(queue)

        ended = wait_for(lambda token=lost: bench.ended(token))  # type: ignore[misc]
        report = wait_for(lambda queue=queue: (found := bench.report(queue)) and found.restarts and found)  # type: ignore[misc]
        assert ended["pid"] != pid
        assert len([note for note in bench.notes("bench:started") if note["token"] == lost]) == 1
        assert report.restarts == {"stuck_message": 1}
        assert f"no thread runs message {bench.ids[lost]} of {queue}" in bench.log()
