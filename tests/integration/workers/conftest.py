"""Real supervisors, children and commands on the small yard of :mod:`tests.integration.workers.bench`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Message

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.pool_reports import PoolReport, PoolReports
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.bench.yard import YARD
from tests.processes import titles_below as titles_below
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
BENCH = "tests.integration.workers.bench"


class Bench:
    """The small yard from outside: start its commands, send it work, look at what it did.

    Attributes:
        settings: Package of the settings of its processes.
    """

    settings = BENCH

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.client: redis.Redis = connect(url)
        self.reports = PoolReports(RedisCalls(self.client), Keys())
        self.environment = {
            **os.environ, "DJANGO_SETTINGS_MODULE": f"{self.settings}.settings", "SWITCHYARD_BROKER_URL": url,
            "SWITCHYARD_STATE_DIR": str(folder), "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "SWITCHYARD_RELEASE": "bench", "dramatiq_restart_delay": "100",
        }  # fmt: skip
        self.broker = RedisBroker(self.client, Keys(), middleware=[])
        for lane in YARD.lanes:
            self.broker.declare_queue(lane)
        self.ids: dict[str, str] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, **options: str) -> subprocess.Popen[bytes]:
        """Start ``manage.py`` with arguments, from anywhere, in a process group of its own."""
        return self._spawn(str(ROOT / "manage.py"), *arguments, folder=self.folder, **options)

    def up(self, command: str, *arguments: str, log: str = "log", **options: str) -> subprocess.Popen[bytes]:
        """Start ``runpools``, or ``runpool`` with its pool first, and wait until they are ready."""
        process = self.start(command, *arguments, log=log, **options)
        self.wait_for_log("pools: all ready" if command == "runpools" else f"pool {arguments[0]}: ready", log=log)
        return process

    def start_module(self, *arguments: str, **options: str) -> subprocess.Popen[bytes]:
        """Start a module with arguments, from the repository, in a process group of its own."""
        return self._spawn("-m", *arguments, folder=ROOT, **options)

    def _spawn(
        self, *arguments: str, folder: Path, settings: str = "settings", yard: str = "small", apps: str = BENCH,
        log: str = "log",
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Start a process.

        Args:
            settings: Module of its settings.
            yard: Name of one of the yards of :mod:`bench.yard`.
            apps: Its apps beside those of the library.
        """
        own = {"DJANGO_SETTINGS_MODULE": f"{self.settings}.{settings}", "BENCH_YARD": yard, "BENCH_APPS": apps}
        with (self.folder / log).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=folder, env={**self.environment, **own}, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def log(self, log: str = "log") -> str:
        return (self.folder / log).read_text()

    def unusual_log(self, log: str = "log") -> str:
        """Return what was printed, without the lines of tasks that succeeded."""
        return "\n".join(line for line in self.log(log).splitlines() if "] succeeded " not in line)

    def wait_for_log(self, text: str, timeout_s: float = 90.0, log: str = "log") -> None:
        """Wait until something was printed; by default for as long as a start may take on a busy machine.

        Raises:
            AssertionError: it was not, and what was instead.
        """
        try:
            wait_for(lambda: text in self.log(log), timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{text!r} not in the log within {timeout_s} s:\n{self.log(log)[-4_000:]}") from error

    def send(self, queue: str, ms: int = 0, how: str = "sleep", **options: Any) -> str:
        """Enqueue a job that takes so long, in a way that :func:`bench.actors.run` knows, and return its token."""
        token = uuid.uuid4().hex
        message: Message[Any] = Message(
            queue_name=queue, actor_name=f"{queue}_job", args=(token, ms, how), kwargs={}, options=options
        )
        self.ids[token] = message.message_id
        self.broker.enqueue(message)
        return token

    def begun(self, queue: str, ms: int = 0, how: str = "sleep", **options: Any) -> str:
        """Enqueue a job, wait until it has started, and return its token."""
        token = self.send(queue, ms, how, **options)
        wait_for(lambda: self.started(token))
        return token

    def ran(self, queue: str, ms: int = 0, how: str = "sleep", **options: Any) -> dict[str, Any]:
        """Enqueue a job, wait until it has ended, and return where it did."""
        token = self.send(queue, ms, how, **options)
        return wait_for(lambda: self.ended(token))

    def notes(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(note) for note in self.client.lrange(key, 0, -1)]  # type: ignore[union-attr]

    def started(self, token: str) -> dict[str, Any] | None:
        """Return where a job started, ``None`` before it did."""
        return next((note for note in self.notes(STARTED) if note["token"] == token), None)

    def ended(self, token: str) -> dict[str, Any] | None:
        """Return where a job ended, ``None`` before it did."""
        return next((note for note in self.notes(ENDED) if note["token"] == token), None)

    def waiting(self, queue: str) -> int:
        return family_stats(RedisCalls(self.client), Keys().queue(queue)).live.waiting

    def report(self, pool: str) -> PoolReport | None:
        return next((report for report in self.reports.read_all() if report.pool == pool), None)

    def stop_all(self) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.broker.close()
        self.client.close()


@pytest.fixture(scope="module")
def module_bench(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench on an emptied Valkey, for all tests of a module."""
    bench = Bench(valkey_url, tmp_path_factory.mktemp("bench"))
    bench.client.flushdb()
    yield bench
    bench.stop_all()


@pytest.fixture
def bench(valkey: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(valkey_url, tmp_path)
    yield bench
    bench.stop_all()
