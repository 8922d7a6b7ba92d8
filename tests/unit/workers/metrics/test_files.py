"""Metrics of pools: files whose counts stay and reach the facts once, whatever ended, was folded or lost; reports."""

import errno
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.pool_reports import PoolReport, ReportedChild
from switchyard.broker.stores.yard_facts import DEAD, MOST_OWNERS, RETRIED, RUN_MS, RUNS, SUCCEEDED, Counts
from switchyard.middleware.metrics import MOST_HOSTS, OWNER_ATTEMPTS, OWNER_SECONDS
from switchyard.operations.metrics import WorkerMetrics
from switchyard.workers import metrics
from switchyard.workers.metrics import FOLDING, EndedChildren, exposition, fold, undisturbed
from switchyard.workers.supervisor.report import RUN, CountFlush, WorkDone


def count(folder: Path, pid: int, value: float) -> None:
    """Leave the file of a process that counted so many jobs."""
    counted = MmapedDict(str(folder / f"counter_{pid}.db"))
    counted.write_value(mmap_key("jobs", "jobs_total", ["actor"], ["a"], "Jobs."), value, 0.0)
    counted.close()


def text_of(folder: Path) -> str:
    return exposition(folder, PoolReport("pool", "host", 1, "threads", 1, 0, 0, 0, "up"), 0).decode()


def test_a_thousand_ended_children_lose_no_count_and_leave_one_file(tmp_path):
    for pid in range(1, 1_001):
        count(tmp_path, pid, pid)
        fold(tmp_path, pid)
    count(tmp_path, 5_000, 1)

    assert f'jobs_total{{actor="a"}} {1_000 * 1_001 / 2 + 1}' in text_of(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db", "counter_5000.db"}


def test_what_only_a_living_process_can_say_is_not_kept(tmp_path):
    gauge = MmapedDict(str(tmp_path / "gauge_livesum_7.db"))
    gauge.write_value(mmap_key("busy", "busy", [], [], "Busy."), 3.0, 0.0)
    gauge.close()

    fold(tmp_path, 7)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"\xff\x00\x00\x00" + b"\x00" * 60])
def test_a_file_that_was_being_written_is_let_go(tmp_path, left):
    count(tmp_path, 1, 2)
    fold(tmp_path, 1)
    (tmp_path / "counter_7.db").write_bytes(left)

    fold(tmp_path, 7)

    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db"}
    assert 'jobs_total{actor="a"} 2.0' in text_of(tmp_path)


def test_nothing_is_folded_while_the_files_are_read(tmp_path):
    count(tmp_path, 1, 2)
    ended = EndedChildren(tmp_path)
    ended.add(1)

    with undisturbed([tmp_path]):
        again_s = ended.fold()
        meanwhile = {path.name for path in tmp_path.glob("*.db")}

    assert (again_s, meanwhile, ended.fold()) == (0.05, {"counter_1.db"}, math.inf)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db", FOLDING}


def test_who_reads_for_ever_keeps_no_supervisor_from_folding(tmp_path, monkeypatch):
    monkeypatch.setattr("switchyard.workers.metrics.AT_MOST_S", 0.0)
    count(tmp_path, 1, 2)
    ended = EndedChildren(tmp_path)
    ended.add(1)

    with undisturbed([tmp_path]):
        ended.fold()

    assert 'jobs_total{actor="a"} 2.0' in text_of(tmp_path)


def test_another_process_never_reads_a_count_twice(tmp_path):
    """The web reads all pools' folders, in its own time."""
    folder = tmp_path / "urgent"
    folder.mkdir()
    ended, over = EndedChildren(folder), threading.Event()

    def run() -> None:
        for pid in range(1, 201):
            count(folder, pid, 1)
            ended.add(pid)
            while ended.fold() != math.inf:
                pass
        over.set()

    folding = threading.Thread(target=run)
    folding.start()
    seen = [0.0]
    while not over.is_set():
        seen += [sample.value for metric in WorkerMetrics(tmp_path).collect() for sample in metric.samples]
    folding.join()

    assert seen == sorted(seen), "a counter that falls is a restart to Prometheus"
    assert max(seen) <= 200


FULL_DISK = """
import errno, os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter, values
from switchyard.workers import metrics
folder, allocate = Path(sys.argv[1]), os.posix_fallocate
os.environ[metrics.VARIABLE] = str(folder)
values.ValueClass = values.MultiProcessValue()
metrics.name_files()
jobs = Counter("jobs", "Jobs.", ("n",), registry=CollectorRegistry())
def full(*of):
    raise OSError(errno.ENOSPC, "No space left on device")
def forked(label):
    if not (pid := os.fork()):
        jobs.labels(label).inc()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
for n in range(2_000):
    jobs.labels(n).inc()
forked(0)
before = {file: file.stat().st_size for file in folder.iterdir()}
assert len(before) == 2 and min(before.values()) > 65_536, before
os.posix_fallocate = full
jobs.labels("new").inc()
forked(1), forked("newer")
assert {file: file.stat().st_size for file in folder.iterdir()} == before
os.posix_fallocate = allocate
metrics._name.forget()
jobs.labels("later").inc()
assert "later" in (folder / f"counter_{os.getpid()}.db").read_text("latin-1")
assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in folder.iterdir())
"""


def test_a_full_disk_costs_only_metrics(tmp_path, monkeypatch):
    """A sparse file without room ends its process with SIGBUS: at its begin, as it grows, and after a fork."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    (ended := tmp_path / "ended").mkdir()
    count(ended, 7, 1)

    monkeypatch.setattr("os.posix_fallocate", mock.Mock(side_effect=OSError(errno.ENOSPC, "no space")))
    fold(ended, 7)

    assert list(ended.iterdir()) == []


def report(*, ready: bool = True, restarts: dict[str, int] | None = None) -> PoolReport:
    child: dict[str, Any] = {"pid": 10, "ready": ready, "busy": 1, "done": 5, "rss_bytes": 1000}
    return PoolReport(
        pool="urgent", host="a", pid=9, kind="threads", slots=4, busy=1, started_at=0, beat_at=0, state="up",
        children=[child], restarts=restarts or {},
    )  # fmt: skip


def lines_of(report: PoolReport) -> list[str]:
    text = exposition(Path("no folder"), report, 2_000).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture(autouse=True)
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "memory_here", lambda: 5_000)


def test_a_pool_has_its_slots_its_memory_and_its_restarts():
    lines = lines_of(report(restarts={"exit": 1, "SIGKILL": 3}))

    assert lines == [
        'switchyard_worker_up{pool="urgent"} 1.0',
        'switchyard_worker_slots{pool="urgent"} 4.0',
        'switchyard_worker_slots_busy{pool="urgent"} 1.0',
        'switchyard_worker_memory_bytes{pool="urgent"} 2000.0',
        'switchyard_worker_memory_limit_bytes{pool="urgent"} 5000.0',
        'switchyard_worker_restarts_total{pool="urgent",reason="SIGKILL"} 3.0',
        'switchyard_worker_restarts_total{pool="urgent",reason="exit"} 1.0',
    ]
    assert 'switchyard_worker_up{pool="urgent"} 0.0' in lines_of(report(ready=False)), "its child is not ready"


class Store:
    """Facts that add each flush once; ``answers``: whether the next answer arrives."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.last, self.answers = 0, True

    def add(self, member: str, flush: int, counts: Mapping[str, Counts]) -> bool:
        if flush > self.last:
            self.last = flush
            self.counts.update({(name, code): n for name, of in counts.items() for code, n in of.items()})
        if not self.answers:
            raise BrokerUnavailable("add", "no answer")
        return True


class Child:
    """A process's metrics files, in which attempts of one actor are counted."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self.pid = folder, pid

    def count(self, attempts: int, *, actor: str = "mail") -> None:
        where = ["queue", "actor"]
        names = {
            "counter": [mmap_key("switchyard_messages", "switchyard_messages_total", [*where, "outcome"],
                                 ["default", actor, "succeeded"], "")],
            "histogram": [mmap_key(RUN, f"{RUN}_bucket", [*where, "le"], ["default", actor, "0.08"], ""),
                          mmap_key(RUN, f"{RUN}_sum", where, ["default", actor], "")],
        }  # fmt: skip
        for kind, keys in names.items():
            values = MmapedDict(str(self.folder / f"{kind}_{self.pid}.db"))
            for key in keys:
                grown = attempts * 0.06 if "_sum" in key else attempts
                values.write_value(key, values.read_value(key)[0] + grown, 0.0)
            values.close()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def flush(tmp_path: Path, store: Store) -> CountFlush:
    return CountFlush(tmp_path, pool="p", release="1.0", member="p:host:1", store=store)  # type: ignore[arg-type]


def test_attempts_count_for_each_subject_with_class_and_time(tmp_path, store, flush):
    Child(tmp_path, 7).count(3)
    Child(tmp_path, 8).count(2)
    flush.flush()
    Child(tmp_path, 8).count(1)

    assert flush.flush()

    for subject in ("q:default", "a:mail", "p:p", "r:1.0", "y:"):
        assert store.counts[subject, SUCCEEDED] == store.counts[subject, RUNS + 4] == 6
        assert store.counts[subject, RUN_MS] in (358, 359, 360)  # whole ms of each file


def test_an_unanswered_flush_is_repeated_and_the_rest_follows(tmp_path, store, flush):
    child = Child(tmp_path, 7)
    child.count(3)
    store.answers = False
    assert not flush.flush()
    child.count(4)
    assert not flush.flush()
    store.answers = True

    assert flush.flush()

    assert store.counts["a:mail", SUCCEEDED] == 7


def test_files_of_an_ended_child_count_once_when_folded(tmp_path, store, flush):
    Child(tmp_path, 7).count(3)
    flush.flush()
    Child(tmp_path, 7).count(2, actor="other")
    fold(tmp_path, 7)
    Child(tmp_path, 9).count(1)

    flush.flush()

    assert (store.counts["a:mail", SUCCEEDED], store.counts["a:other", SUCCEEDED]) == (4, 2)


def test_a_folder_that_is_emptied_takes_nothing_away(tmp_path, store, flush):
    Child(tmp_path, 7).count(3)
    flush.flush()
    for path in tmp_path.glob("*.db"):
        path.unlink()
    flush.flush()
    Child(tmp_path, 9).count(2)

    flush.flush()

    assert store.counts["a:mail", SUCCEEDED] == 5


def test_a_broken_file_stops_no_supervisor(tmp_path, store, flush):
    (tmp_path / "counter_3.db").write_bytes(b"")
    (tmp_path / "counter_4.db").write_bytes(b"\x10\0\0")
    child = Child(tmp_path, 7)
    child.count(1)
    flush.flush()
    whole = (tmp_path / "counter_7.db").read_bytes()
    for broken in (whole[:40], whole[:8] + b"\xff" * 200, whole.replace(b"switchyard", b"\xff" * 10)):
        (tmp_path / "counter_7.db").write_bytes(broken)
        assert flush.flush()
    (tmp_path / "counter_7.db").write_bytes(whole)
    child.count(1)

    assert flush.flush()
    assert store.counts["a:mail", SUCCEEDED] == 2


def test_hosts_count_up_to_a_number_however_many_a_child_names(tmp_path, store, flush):
    labels = ["dependency", "host", "outcome"]
    family = "switchyard_dependency_host_calls"
    for pid in (7, 8):
        values = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        for number in range(MOST_HOSTS):
            host = f"{number}.of-{pid}.example"
            values.write_value(mmap_key(family, f"{family}_total", labels, ["web", host, "failed"], ""), 2, 0.0)
        values.close()

    assert flush.flush()

    assert ({code for _, code in store.counts}, len(store.counts)) == ({RETRIED}, MOST_HOSTS + 1)
    assert store.counts["d:web other", RETRIED] == 2 * MOST_HOSTS
    assert all(count == 2 for (subject, _), count in store.counts.items() if subject != "d:web other")


def test_longest_owners_are_counted_and_all_others_together(tmp_path, store, flush):
    values = MmapedDict(str(tmp_path / "counter_7.db"))
    for number in range(MOST_OWNERS + 3):
        owner = f"user:{number:03}"
        attempts = mmap_key(OWNER_ATTEMPTS, f"{OWNER_ATTEMPTS}_total", ["outcome", "owner"], ["dead", owner], "")
        seconds = mmap_key(OWNER_SECONDS, f"{OWNER_SECONDS}_total", ["owner"], [owner], "")
        values.write_value(attempts, 2, 0.0)
        values.write_value(seconds, 1 + number, 0.0)
    values.close()

    assert flush.flush()

    assert {subject[:2] for subject, _ in store.counts} == {"o:"}
    assert store.counts["o:user:003", RUN_MS] == 4_000 and store.counts["o:user:003", DEAD] == 2
    assert store.counts["o:other", RUN_MS] == 1_000 + 2_000 + 3_000
    assert sum(count for (_, code), count in store.counts.items() if code == DEAD) == 2 * (MOST_OWNERS + 3)


def child(pid: int, *, busy: int, done: int) -> ReportedChild:
    return {"pid": pid, "busy": busy, "done": done}


def test_replaced_child_takes_nothing_from_the_totals(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr("switchyard.workers.supervisor.report.time.monotonic", lambda: now_s)
    work = WorkDone()

    work.note([child(1, busy=2, done=5)])
    now_s = 102.0
    work.note([child(1, busy=2, done=9), child(2, busy=1, done=1)])
    now_s = 104.0
    work.note([child(3, busy=1, done=2)])

    assert (work.done, work.busy_s) == (12, pytest.approx(2.5 * 2 + 2 * 2))
