"""Metrics of pools: files of processes that ended, whose counts stay, and reports of supervisors."""

from __future__ import annotations

import errno
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.operations.metrics import WorkerMetrics
from switchyard.workers import metrics
from switchyard.workers.metrics import FOLDING, EndedChildren, exposition, fold, undisturbed


def count(folder: Path, pid: int, value: float) -> None:
    """Leave the file of a process that counted so many jobs."""
    counted = MmapedDict(str(folder / f"counter_{pid}.db"))
    counted.write_value(mmap_key("jobs", "jobs_total", ["actor"], ["a"], "Jobs."), value, 0.0)
    counted.close()


def text_of(folder: Path) -> str:
    """Return what a scrape would read."""
    return exposition(folder, PoolReport("pool", "host", 1, "threads", 1, 0, 0, 0, "up"), 0).decode()


def test_a_thousand_ended_children_lose_no_count_and_leave_one_file(tmp_path: Path) -> None:
    for pid in range(1, 1_001):
        count(tmp_path, pid, pid)
        fold(tmp_path, pid)
    count(tmp_path, 5_000, 1)

    text = text_of(tmp_path)

    assert f'jobs_total{{actor="a"}} {1_000 * 1_001 / 2 + 1}' in text
    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db", "counter_5000.db"}


def test_what_only_a_living_process_can_say_is_not_kept(tmp_path: Path) -> None:
    gauge = MmapedDict(str(tmp_path / "gauge_livesum_7.db"))
    gauge.write_value(mmap_key("busy", "busy", [], [], "Busy."), 3.0, 0.0)
    gauge.close()

    fold(tmp_path, 7)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"\xff\x00\x00\x00" + b"\x00" * 60])
def test_a_file_that_was_being_written_is_let_go(tmp_path: Path, left: bytes) -> None:
    count(tmp_path, 1, 2)
    fold(tmp_path, 1)
    (tmp_path / "counter_7.db").write_bytes(left)

    fold(tmp_path, 7)

    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db"}
    assert 'jobs_total{actor="a"} 2.0' in text_of(tmp_path)


def test_nothing_is_folded_while_the_files_are_read(tmp_path: Path) -> None:
    count(tmp_path, 1, 2)
    ended = EndedChildren(tmp_path)
    ended.add(1)

    with undisturbed([tmp_path]):
        again_s = ended.fold()
        meanwhile = {path.name for path in tmp_path.glob("*.db")}

    assert (again_s, meanwhile) == (0.05, {"counter_1.db"})
    assert ended.fold() == math.inf
    assert {path.name for path in tmp_path.iterdir()} == {"counter_ended.db", FOLDING}


def test_who_reads_for_ever_does_not_keep_a_supervisor_from_folding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.workers.metrics.AT_MOST_S", 0.0)
    count(tmp_path, 1, 2)
    ended = EndedChildren(tmp_path)
    ended.add(1)

    with undisturbed([tmp_path]):
        ended.fold()

    assert 'jobs_total{actor="a"} 2.0' in text_of(tmp_path)


def test_another_process_never_reads_a_count_twice(tmp_path: Path) -> None:
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


def test_a_full_disk_costs_only_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_pool_has_its_slots_its_memory_and_its_restarts() -> None:
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


def test_a_pool_whose_children_are_not_ready_is_not_up() -> None:
    assert 'switchyard_worker_up{pool="urgent"} 0.0' in lines_of(report(ready=False))
