"""Reports that a supervisor writes."""

from __future__ import annotations

import redis

from switchyard.broker.keys import Keys
from switchyard.conf import declared_yard
from switchyard.workers.supervisor.report import Reporter
from tests.unit.workers.supervisor.conftest import Server, make_children


def test_the_first_report_forgets_supervisors_that_were_killed_long_ago(valkey: redis.Redis) -> None:
    beats = Keys().pool_beats()
    valkey.hset(beats, "urgent:gone:7", 1)
    pool = declared_yard().pools[0]
    reporter = Reporter(pool)

    report = reporter.build(make_children(pool, Server()), silent=[], state="up", metrics_port=1)
    reporter.write(report)

    assert valkey.hkeys(beats) == [report.member.encode()]
