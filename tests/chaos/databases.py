"""Real pools of :mod:`tests.chaos.database_yard` on a database that is taken away, and what is sent to them."""

import contextlib
import itertools
import os
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.broker.topology import Yard
from switchyard.wiring import build_yard
from tests.chaos.database_yard import YARD
from tests.chaos.ledger import Ledger
from tests.chaos.pools import MANAGE, RunningPool
from tests.waiting import wait_for

SETTINGS = "tests.chaos.database_yard.settings"
TABLE = (
    "CREATE TABLE IF NOT EXISTS chaos_row (id INTEGER GENERATED ALWAYS AS IDENTITY, job VARCHAR(60), "
    "process INTEGER, backend INTEGER DEFAULT pg_backend_pid())"
)
SQLITE_TABLE = "CREATE TABLE IF NOT EXISTS chaos_row (id INTEGER PRIMARY KEY, job VARCHAR(60), process INTEGER)"


class StartedYard:
    """Pools of a yard that run, from outside.

    Args:
        environment: Of all its processes.
    """

    def __init__(self, folder: Path, broker_url: str, yard: Yard, environment: dict[str, str]) -> None:
        self.broker = build_yard(yard, connect(broker_url), Keys())
        self.environment = environment
        self._yard, self._log = yard, folder / "pools.log"
        self._pools: RunningPool | None = None

    def start(self, *pools: str) -> None:
        self._pools = RunningPool.started([*MANAGE, "runpools", *pools], self._log, env=self.environment)
        process = self._pools.process
        wait_for(lambda: "pools: all ready" in self.log() or process.poll() is not None, 120, what="pools ready")
        assert process.poll() is None, self.log()

    def stop(self) -> None:
        if self._pools is not None:
            self._pools.kill()
        self.broker.close()
        self.broker.client.close()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def dead(self) -> int:
        return sum(facilities(self.broker).transport.stats(queue.name).dead for queue in self._yard.queues)

    def manage(self, *arguments: str) -> str:
        return manage(self.environment, *arguments)


class DatabaseYard(StartedYard):
    """Pools that need a database.

    Args:
        database_url: Of a database with the platform's tables and ``chaos_row``.
        yard: What ``settings`` declare.
    """

    def __init__(
        self, ledger: Ledger, broker_url: str, database_url: str, *, yard: Yard = YARD, settings: str = SETTINGS
    ) -> None:
        folder = ledger.path.parent
        super().__init__(folder, broker_url, yard, environment(folder, broker_url, database_url, settings))
        self.ledger = ledger
        self._numbers = itertools.count()

    def processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self._pools.pid)
        return [parent, *parent.children(recursive=True)]

    def reports(self) -> list[PoolReport]:
        return facilities(self.broker).pools.read_all()

    def live(self) -> dict[str, int]:
        return {report.pool: status_of(f"http://127.0.0.1:{report.metrics_port}/health") for report in self.reports()}

    def send(self, actor: str, queue: str, ms: int = 0) -> str:
        job = f"{actor}-{next(self._numbers):06d}"
        self.ledger.note("attempted", job)
        self.broker.enqueue(Message(queue, actor, (job, ms), {}, {}, job))
        self.ledger.note("accepted", job)
        return job

    def send_rows(self, count: int, *, kinds: tuple[str, ...]) -> list[str]:
        """Enqueue so many jobs that write a row, spread over kinds of pools."""
        return [self.send(f"{kind}_row", kind) for kind in itertools.islice(itertools.cycle(kinds), count)]

    def wait_for_completed(self, jobs: list[str], timeout_s: float = 120.0) -> None:
        wanted = set(jobs)
        wait_for(lambda: wanted <= set(self.ledger.jobs("completed")), timeout_s, what=f"{len(jobs)} jobs completed")

    def attempts_spent(self) -> int:
        return sum(count - 1 for count in Counter(self.ledger.jobs("started")).values())

    def waits_ms(self, jobs: list[str]) -> list[float]:
        """Return how long each of some jobs waited from being accepted to its start, ordered."""
        at = {(entry.phase, entry.job): entry.at_s for entry in self.ledger.entries()}
        return sorted(max(at["started", job] - at["accepted", job], 0) * 1000 for job in jobs)


def environment(folder: Path, broker_url: str, database_url: str, settings: str = SETTINGS) -> dict[str, str]:
    """Return the environment of processes whose files, and whose ledger, are in a folder."""
    return {
        **os.environ, "DJANGO_SETTINGS_MODULE": settings, "SWITCHYARD_BROKER_URL": broker_url,
        "SWITCHYARD_STATE_DIR": str(folder), "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
        "DATABASE_URL": database_url, "CHAOS_LEDGER": str(folder / "ledger"),
    }  # fmt: skip


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run ``manage.py`` with arguments and return what it printed.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run([*MANAGE, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status_of(url: str) -> int:
    """Return the status with which an address answers; 0 when it does not."""
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextlib.contextmanager
def sqlite_writer(path: Path) -> Iterator[None]:
    """Hold the writer's lock of an SQLite database for the time of the block."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def steadily(send: Any, every_s: float) -> Iterator[list[str]]:
    """Send a job every so often for the time of the block; give the list that their names go into."""
    sent: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(every_s):
            sent.append(send())

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join(60)
