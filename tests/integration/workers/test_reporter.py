"""Reports that a supervisor writes."""

from __future__ import annotations

import redis

from switchyard.broker.keys import Keys
from switchyard.conf import declared_yard
from switchyard.workers.supervisor.report import Reporter


def test_the_first_report_forgets_supervisors_that_were_killed_long_ago(valkey: redis.Redis) -> None:
    beats = Keys().pool_beats()
    valkey.hset(beats, "urgent:gone:7", 1)
    reporter = Reporter(declared_yard().pools[0])

    reporter.write(report := reporter.build([], restarts={}, crashes={}, state="up", metrics_port=1))

    assert valkey.hkeys(beats) == [report.member.encode()]
