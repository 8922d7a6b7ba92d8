"""A supervisor: its log, the grouping of its pools, cancelled jobs and the signals for them, and stacks."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.conf import settings

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.workers import pool_group
from switchyard.workers.shared.child_table import ChildTable, Running
from switchyard.workers.shared.fork import stacks_file
from switchyard.workers.supervisor import report
from switchyard.workers.supervisor import supervisor as module
from switchyard.workers.supervisor.children import END_AFTER_S, INTERRUPT_AFTER_S, POLL_AGAIN_S, CancellationWatch
from switchyard.workers.supervisor.report import MOST_FRAMES, MOST_STACKS, StackRequests, read_stacks
from switchyard.workers.supervisor.supervisor import Supervisor


class Signals:
    """Stand-in for the signal pipe: the test process keeps its handlers."""

    def __init__(self, **_: Any) -> None:
        self.read_fd, self._write_fd = os.pipe()
        self.came = [signal.SIGTERM]

    def take(self) -> list[int]:
        came, self.came = self.came, []
        return came

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self._write_fd)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    settings = replace(switchyard_settings(), metrics_dir=tmp_path, broker_url="redis://127.0.0.1:1/0")
    monkeypatch.setattr(module, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(module, "signals_of_parent", Signals)
    monkeypatch.setattr(module, "prepare_to_fork", lambda: None)
    monkeypatch.setattr("switchyard.workers.supervisor.children.start_child", lambda *_, **__: 0)
    made: list[Supervisor] = []

    def make_one(**options: Any) -> Supervisor:
        made.append(Supervisor(declared_yard().pools[0], **options))
        return made[-1]

    yield make_one
    for supervisor in made:
        supervisor._close_inherited()


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://0.0.0.0:"), ("localhost", "http://localhost:")],
)
def test_the_address_of_metrics_is_logged(make, host, url, caplog):
    supervisor = make(metrics_host=host)

    supervisor.run()

    assert f"metrics at {url}{supervisor._listener.port}/metrics" in caplog.text


def test_a_parent_that_is_gone_is_logged_once_and_ends_the_pool(make, monkeypatch):
    [row] = ChildTable.create(1).rows
    supervisor = make(own_row=row)
    monkeypatch.setattr(module.os, "getppid", lambda: 1)
    warning = Mock()
    monkeypatch.setattr(module.logger, "warning", warning)

    for _ in range(5):
        supervisor._enforce_drain()

    assert [call.args[-1] for call in warning.call_args_list] == ["the parent is gone"]
    assert supervisor._children.stopping


S = 1_000_000_000


class Requests:
    """Cancellation requests that a supervisor looks for, and time that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns, self.asked, self.looks, self.away = 1_000 * S, set[bytes](), 0, False
        self.stops = CancellationWatch(self.look)
        monkeypatch.setattr("switchyard.workers.supervisor.children.time.monotonic", lambda: self.ns / S)
        monkeypatch.setattr("switchyard.workers.supervisor.children.time.monotonic_ns", lambda: self.ns)

    def look(self, running: Mapping[int, Sequence[Running]]) -> set[tuple[int, Running]]:
        self.looks += 1
        if self.away:
            raise BrokerUnavailable("HMGET", "away")
        return {(place, ran) for place, messages in running.items() for ran in messages if ran.id in self.asked}

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * S)

    def running(self, id_: bytes, *, limit_s: float = 60.0) -> Running:
        return Running(lane=0, id=id_, token=1, start_ns=self.ns, limit_ns=int(limit_s * S))

    def asked_to_stop(self) -> Running:
        """Return a message that runs, and of which a supervisor knows that it is cancelled."""
        ran = self.running(b"a")
        self.asked = {b"a"}
        self.stops.update({1: [ran]})
        return ran


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(monkeypatch)


def test_who_was_asked_has_so_long_to_end_by_itself_and_its_own_limit_goes_first(requests):
    stops, long, short = requests.stops, requests.running(b"long"), requests.running(b"short", limit_s=2)
    requests.asked = {b"long", b"short"}

    stops.update({1: [long, short]})

    assert stops.is_cancelled(1, long)
    assert stops.over_at_ns(1, long) == requests.ns + END_AFTER_S * S
    assert stops.over_at_ns(1, short) == short.start_ns + 2 * S
    assert stops.over_at_ns(2, long) == long.start_ns + 60 * S


def test_it_is_interrupted_once_when_it_had_the_time_to_hear_of_it(requests):
    ran = requests.asked_to_stop()

    early = requests.stops.to_interrupt()
    requests.pass_s(INTERRUPT_AFTER_S)

    assert [early, requests.stops.to_interrupt(), requests.stops.to_interrupt()] == [[], [(1, ran)], []]


def test_it_is_looked_four_times_a_second_while_something_runs(requests):
    ran = requests.running(b"a")

    requests.stops.update({1: []})
    idle = requests.looks
    for _ in range(100):
        requests.stops.update({1: [ran]})
        requests.pass_s(0.01)

    assert idle == 0
    assert 4 <= requests.looks <= 5


def test_a_server_that_is_away_is_asked_once_a_second_and_forgets_nobody(requests):
    ran = requests.asked_to_stop()
    over_at_ns = requests.stops.over_at_ns(1, ran)
    requests.away = True
    requests.pass_s(0.5)

    assert requests.stops.update({1: [ran]}) == pytest.approx(POLL_AGAIN_S)
    assert requests.stops.over_at_ns(1, ran) == over_at_ns


def test_who_ended_is_forgotten(requests):
    ran = requests.asked_to_stop()

    requests.stops.update({1: []})

    assert not requests.stops.is_cancelled(1, ran)
    requests.pass_s(INTERRUPT_AFTER_S)
    assert requests.stops.to_interrupt() == []


THREADS = f"""Thread 0x00007f01 (most recent call first):
  File "{sys.prefix}/lib/python3.11/site-packages/redis/client.py", line 12 in read
  File "{settings.BASE_DIR}/apps/mail/actors.py", line 40 in send <secret>
  File "{settings.BASE_DIR}/apps/mail/actors.py", line 9 in send

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 5 in wait
"""
GREENLETS = """GreenletTree
 +--- <Greenlet "Greenlet-3" at 0x7f: deliver('https://user:password@example.com')>
 |     Parent: <Hub '' at 0x7f>
 |     Spawned at:
 |       File "/usr/lib/spawner.py", line 1, in spawn
 |         Greenlet.spawn(deliver, 'password')
 |     Greenlet Locals:
 |       Local {'token': 'password'}
 |     Running:
 |       File "/usr/lib/run.py", line 906, in run
 |         result = self._run(*self.args)
 |       File "/usr/lib/deliver.py", line 7, in deliver
 |         post(password='password')
"""


def test_threads_and_greenlets_are_told_by_file_line_and_function_and_nothing_else():
    assert read_stacks(THREADS) == [
        Stack("thread", ["redis/client.py:12 read", "apps/mail/actors.py:9 send"]),
        Stack("running thread", ["/usr/lib/python3.11/threading.py:5 wait"]),
    ]

    stacks = read_stacks(GREENLETS)

    assert stacks == [Stack("greenlet Greenlet-3", ["/usr/lib/deliver.py:7 deliver", "/usr/lib/run.py:906 run"])]


def test_a_long_dump_is_cut():
    frames = "".join(f'  File "x.py", line {line} in deep\n' for line in range(MOST_FRAMES + 5))

    stacks = read_stacks(f"Thread 0x1 (most recent call first):\n{frames}" * (MOST_STACKS + 5))

    assert (len(stacks), {len(stack.frames) for stack in stacks}) == (MOST_STACKS, {MOST_FRAMES})


def test_only_what_was_written_since_the_request_is_told(monkeypatch):
    answers: list[tuple[str, list[ChildStacks]]] = []
    file: Path = stacks_file("urgent", 77)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(THREADS)
    monkeypatch.setattr(report, "WAIT_S", 0)

    def dump(pid: int, signum: int) -> None:
        with file.open("a") as appended:
            appended.write('Thread 0x1 (most recent call first):\n  File "new.py", line 1 in new\n')

    monkeypatch.setattr(report.os, "kill", dump)
    asked = StackRequests("urgent", lambda request, told: answers.append((request, told)))
    asked.begin("a request", [77])
    asked.finish()
    asked.finish()

    assert answers == [("a request", [ChildStacks(77, [Stack("thread", ["new.py:1 new"])])])]


def test_a_request_that_is_read_again_is_answered_once(monkeypatch):
    monkeypatch.setattr(report, "WAIT_S", 0)
    signalled, answers = [], []
    monkeypatch.setattr(report.os, "kill", lambda pid, signum: signalled.append(pid))
    asked = StackRequests("urgent", lambda request, told: answers.append(request))

    for request in ("first", "first", "second"):
        asked.begin(request, [77])
        asked.finish()

    assert (signalled, answers) == ([77, 77], ["first", "second"])


WEBHOOK, RETRIES, URGENT = (settings.SWITCHYARD.topology.pool(name) for name in ("webhook", "webhook-retry", "urgent"))


def test_gevent_pools_share_a_parent_and_begin_first_and_a_single_one_and_those_below_it_do_not(monkeypatch):
    assert pool_group._parts([URGENT, WEBHOOK, RETRIES]) == ((WEBHOOK, RETRIES), (URGENT,))
    assert pool_group._parts([URGENT, WEBHOOK]) == ((WEBHOOK,), (URGENT,))

    monkeypatch.setattr(pool_group, "is_patched", lambda: True)

    assert pool_group._parts([WEBHOOK, RETRIES]) == ((WEBHOOK,), (RETRIES,))


def test_where_the_kernel_ends_no_orphans_nothing_is_shared(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    threads = replace(URGENT, name="other")

    assert pool_group._parts([WEBHOOK, threads, RETRIES]) == ((WEBHOOK,), (RETRIES,), (threads,))
