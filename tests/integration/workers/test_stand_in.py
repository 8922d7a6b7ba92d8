"""Parts of a supervisor on a real server: its reports, and the stand-in for a scheduler, which sends the alerts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.conf import declared_yard
from switchyard.long_running import Leadership
from switchyard.workers.supervisor.report import Reporter
from switchyard.workers.supervisor.supervisor import ALONE_S, StandIn
from tests.processes import is_alive
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.workers.supervisor.conftest import Server, make_children
from tests.waiting import wait_for

KEYS = Keys("stand-in-test")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    made: list[subprocess.Popen[bytes]] = []

    def fork(run: Callable[[], int], *, title: str, close_inherited: object) -> int:
        made.append(subprocess.Popen(["sleep", "600"]))
        return made[-1].pid

    monkeypatch.setattr("switchyard.workers.supervisor.supervisor.fork", fork)
    yield made
    for process in made:
        process.kill()
        process.wait()


def look(clock: Mock, until_s: float, *supervisors: StandIn) -> None:
    """Have supervisors look every 2 s."""
    ends_s = clock.return_value + until_s
    while clock.return_value < ends_s:
        clock.return_value += 2.0
        for supervisor in supervisors:
            supervisor.look()


def test_one_of_two_supervisors_starts_it_after_a_time_without_a_leader_and_ends_it(
    valkey: redis.Redis, started: list[subprocess.Popen[bytes]]
) -> None:
    clock, calls = Mock(return_value=1_000.0), RedisCalls(valkey)
    with with_alert_urls("mailto:ops@example.com"):
        one, other = (StandIn(calls, KEYS, close_inherited=(), clock=clock) for _ in range(2))
    leader = Leadership(calls, KEYS)
    leader.acquire_or_renew()

    look(clock, 60.0, one, other)
    with_a_leader = len(started)
    leader.release()
    look(clock, ALONE_S - 2, one, other)
    soon = len(started)
    look(clock, 30.0, one, other)
    alone = len(started)
    [process] = started
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is the supervisor's to reap
    look(clock, 4.0, one, other)
    again = len(started)
    leader.acquire_or_renew()
    look(clock, 4.0, one, other)

    assert (with_a_leader, soon, alone, again) == (0, 0, 1, 2)
    wait_for(lambda: not is_alive(started[1].pid))
    assert not valkey.exists(KEYS.lock("alerts"))


def test_it_starts_where_the_other_supervisor_is_gone(
    valkey: redis.Redis, started: list[subprocess.Popen[bytes]]
) -> None:
    clock, calls = Mock(return_value=1_000.0), RedisCalls(valkey)
    with with_alert_urls("mailto:ops@example.com"):
        gone, other = (StandIn(calls, KEYS, close_inherited=(), clock=clock) for _ in range(2))
    look(clock, ALONE_S + 4, gone, other)
    valkey.delete(KEYS.lock("alerts"))

    look(clock, 2.0, other)
    look(clock, 2.0, gone)

    assert len(started) == 2
    wait_for(lambda: not is_alive(started[0].pid))


def test_without_a_channel_nothing_is_asked_or_started(started: list[subprocess.Popen[bytes]]) -> None:
    clock, calls = Mock(return_value=1_000.0), Mock()
    with with_alert_urls():
        supervisor = StandIn(calls, KEYS, close_inherited=(), clock=clock)

    look(clock, 60.0, supervisor)

    assert started == [] and not calls.command.called


def test_the_first_report_forgets_supervisors_that_were_killed_long_ago(valkey: redis.Redis) -> None:
    beats = Keys().pool_beats()
    valkey.hset(beats, "urgent:gone:7", 1)
    pool = declared_yard().pools[0]
    reporter = Reporter(pool)

    report = reporter.build(make_children(pool, Server()), silent=[], state="up", metrics_port=1)
    reporter.write(report)

    assert valkey.hkeys(beats) == [report.member.encode()]
