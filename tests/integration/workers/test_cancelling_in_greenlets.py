"""A greenlet that is cancelled in one of the pools that share a parent."""

from __future__ import annotations

import pytest

from tests.integration.workers.conftest import Bench
from tests.integration.workers.test_cancelling import Jobs
from tests.waiting import wait_for


@pytest.mark.long
def test_a_greenlet_that_computes_ends_in_pools_that_share_a_parent(bench: Bench) -> None:
    jobs = Jobs(bench)
    bench.start("runpools", "webhook", "retries", yard="two gevent")
    bench.wait_for_log("pool webhook: ready")
    neighbour = jobs.running("webhook", ms=3_000)
    token = jobs.running("webhook", "spin")

    jobs.cancelled_after_s(token)

    wait_for(lambda: jobs.record(neighbour).ended)
    assert len(jobs.starts(neighbour)) == 1
    jobs.assert_forgotten(token, "webhook")
