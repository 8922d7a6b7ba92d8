"""One measurement: a real pool drains a backlog on its own server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from django.conf import settings
from dramatiq import Message

from devtools.measuring.apps import VARIABLE, Attempt, read_attempts
from devtools.measuring.work import POOL
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import PoolKind
from switchyard.conf import switchyard_settings
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.fork import die_with_parent, memory_bytes

START_S = 60.0
SHOWN_LOG_CHARACTERS = 2_000


class NotMeasured(Exception):
    """A pool did not start, or did not finish its work in time. The message ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured figures of a pool, memory and processor time of its supervisor and children together.

    Args:
        p95_ms: Run time of a task in its worker.
        cpu_percent: 100 is one core.
    """

    tasks_per_s: float
    p95_ms: float
    memory_mb: float
    cpu_percent: float
    failed: int


def measure(
    kind: PoolKind, processes: int, slots: int, work: Callable[[], Message[Any]], *, tasks: int, timeout_s: float
) -> Figures:
    """Let a pool drain ``tasks`` messages of the work and return its figures. Each slot runs one before, to warm up.

    Raises:
        NotMeasured: it did not start, or did not finish in time.
    """
    with TemporaryDirectory(prefix="switchyard-measured-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(EmbeddedServer(folder / "valkey"))
        broker = RedisBroker(connect(server.url), Keys(), middleware=[])
        stack.callback(broker.close)
        queue = work().queue_name
        broker.declare_queue(queue)
        log = stack.enter_context((folder / "log").open("w+"))
        pool = subprocess.Popen(
            [sys.executable, str(Path(switchyard_settings().base_dir) / "manage.py"), "runpool", POOL, "--grace=2"],
            env=_environment(server.url, folder, [kind, queue, processes, slots]),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        stack.callback(_end, pool)

        def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
            deadline = time.monotonic() + within_s
            while not condition():
                if pool.poll() is not None or time.monotonic() > deadline:
                    said = (folder / "log").read_text()[-SHOWN_LOG_CHARACTERS:]
                    raise NotMeasured(
                        f"{kind} {processes} × {slots}: {what} within {within_s:.0f} s; it logged:\n{said}"
                    )
                time.sleep(0.02)

        until(lambda: f"pool {POOL}: ready" in (folder / "log").read_text(), START_S, "not ready")
        times = folder / "times"
        warm = processes * slots
        broker.enqueue_many(work() for _ in range(warm))
        until(lambda: len(read_attempts(times)) >= warm, timeout_s, "not warm")
        members = [psutil.Process(pool.pid), *psutil.Process(pool.pid).children(recursive=True)]
        cpu_s, start_s = _cpu_s(members), time.monotonic()
        broker.enqueue_many(work() for _ in range(tasks))
        until(lambda: len(read_attempts(times)) >= warm + tasks, timeout_s, f"{tasks} tasks not done")
        cpu_s, took_s = _cpu_s(members) - cpu_s, time.monotonic() - start_s
        return _figures(read_attempts(times)[warm:], members, cpu_s / took_s)


def _environment(url: str, folder: Path, pool: list[Any]) -> dict[str, str]:
    config = switchyard_settings()
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "devtools.measuring.settings",
        "SWITCHYARD_MEASURED_SETTINGS": os.environ["DJANGO_SETTINGS_MODULE"],
        "SWITCHYARD_MEASURED_POOL": json.dumps(pool),
        VARIABLE: str(folder / "times"),
        "SWITCHYARD_BROKER_URL": url,
        "SWITCHYARD_STATE_DIR": str(folder),
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        # Only the broker is temporary: the actor uses the project's own database and files.
        "DATABASE_URL": os.environ.get("DATABASE_URL") or f"sqlite:///{config.state_dir / 'db.sqlite3'}",
        "SWITCHYARD_STORAGE_URL": os.environ.get("SWITCHYARD_STORAGE_URL") or Path(settings.MEDIA_ROOT).as_uri(),
    }


def _figures(attempts: list[Attempt], members: list[psutil.Process], cores: float) -> Figures:
    took_s = max(one.end_s for one in attempts) - min(one.start_s for one in attempts)
    times_ms = sorted((one.end_s - one.start_s) * 1_000 for one in attempts)
    return Figures(
        tasks_per_s=round(len(attempts) / max(took_s, 1e-6), 1),
        p95_ms=round(times_ms[int(len(times_ms) * 0.95)], 1),
        memory_mb=round(memory_bytes(member.pid for member in members) / 1e6),
        cpu_percent=round(cores * 100),
        failed=sum(not one.completed for one in attempts),
    )


def _cpu_s(members: list[psutil.Process]) -> float:
    total = 0.0
    for member in members:
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def _end(pool: subprocess.Popen[bytes]) -> None:
    pool.terminate()
    try:
        pool.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(pool.pid, signal.SIGKILL)
        pool.wait()
