"""A running yard whose overview is read each second from outside."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.wiring import build_yard
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.server import ServerUnderTest
from tests.factories.endpoints import Answering, answers_of
from tests.verdicts.yard.yard import YARD
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
WATCHER = (sys.executable, "-m", "tests.verdicts.yard.watcher")
TABLE = "CREATE TABLE IF NOT EXISTS verdict_row (id INTEGER PRIMARY KEY, job VARCHAR(60))"
# May be said still of a situation that has ended.
LASTING = re.compile(
    r"(actors|alerts|dead letters|configuration|disk|checks)\..*|history\.(?!down)|pools\.restarts"
    r"|(broker|database)\.slow.*|queues\.(purged|just_late)"
)
Line = dict[str, Any]
# Deadlines, far beyond what a busy machine takes: processes start, a sentence is said, and is said no more.
START_S, SAID_S, CALM_S = 300.0, 180.0, 180.0


class WatchedYard:
    """Real pools, a scheduler, a history writer and a reader of the overview, as processes.

    Args:
        postgres: Its database, with the table that jobs write to; by default an SQLite file, which this one makes.
    """

    def __init__(self, folder: Path, server: ServerUnderTest, postgres: PostgresUnderTest | None = None) -> None:
        self.folder, self.server, self.postgres = folder, server, postgres
        self.database = folder / "db.sqlite3"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.verdicts.yard.settings",
            "SWITCHYARD_BROKER_URL": server.url,
            "SWITCHYARD_STATE_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "DATABASE_URL": postgres.url if postgres else f"sqlite:///{self.database}",
            "PYTHONPATH": str(ROOT),
        }
        self.broker = build_yard(YARD, connect(server.url), Keys())
        self.calls = RedisCalls(connect(server.url))
        self.facts = FactStore(self.calls, Keys())
        self.lines: list[Line] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything and wait until the overview reports nothing but what lasts."""
        self.launch_all()
        self.watch("watcher", *WATCHER)
        self.settle()

    def launch_all(self) -> None:
        """Start everything but what reads the overview, and wait for the pools."""
        self.manage("migrate", "--verbosity=0")
        if self.postgres is None:
            self.execute(TABLE)
        for command in (("runscheduler",), ("runhistory",), ("runpools", "--no-history")):
            self.launch(command[0], *command)
        wait_for(lambda: "pools: all ready" in self.log("runpools"), START_S, what="pools ready")

    def launch(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``manage.py`` with arguments, in a process group of its own."""
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), *arguments],
                env={**self.environment, **environment}, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return self.processes[name]

    def log(self, name: str) -> str:
        """Return what a process printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self.calls.close()
        self.broker.close()
        self.broker.client.close()

    def supervisor(self, pool: str) -> int:
        """Return the process id of a pool's supervisor."""
        return next(report.pid for report in facilities(self.broker).pools.read_all() if report.pool == pool)

    def serves(self, host: str) -> bool:
        """Return whether a pool of a host reports that it takes work."""
        return any(report.host == host and report.state == "up" for report in facilities(self.broker).pools.read_all())

    def is_silent(self, pool: str) -> bool:
        """Return whether a pool reports a child that runs a job and answers nothing."""
        reports = facilities(self.broker).pools.read_all()
        return any(child.runs for report in reports if report.pool == pool for child in report.silent)

    def family(self, queue: str) -> QueueOperations:
        """Return the operations of a queue, declared or not."""
        return QueueOperations(self.calls, Keys().queue(queue))

    def send(self, actor: str, queue: str, *args: Any, count: int = 1, delay_ms: int | None = None) -> None:
        for _ in range(count):
            message: Message[Any] = Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={})
            self.broker.enqueue(message, delay=delay_ms)

    def stats(self, queue: str) -> QueueStats:
        return facilities(self.broker).transport.stats(queue)

    def waiting(self, queue: str) -> int:
        return self.stats(queue).live.waiting

    def execute(self, statement: str) -> None:
        """Execute a statement in the database, from outside."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            connection.execute(statement)

    def find(self, pattern: str, since: float, *, first: bool = True) -> tuple[Line, dict[str, str]]:
        """Wait for a sentence of the overview; return the line and the finding.

        Args:
            first: It has to be the headline; else it may be any finding.

        Raises:
            AssertionError: it was not said, and what was.
        """

        def said() -> tuple[Line, dict[str, str]] | None:
            for line in [line for line in self.lines if line["at"] >= since]:
                for found in line["findings"][:1] if first else line["findings"]:
                    if re.search(pattern, found["sentence"]):
                        return line, found
            return None

        try:
            found = wait_for(said, SAID_S, what=pattern)
        except AssertionError as error:
            findings = [found for line in self.lines if line["at"] >= since for found in line["findings"]]
            seen = {found["name"]: found["sentence"] for found in findings}
            raise AssertionError(f"{pattern!r} was not said, but {seen}; {self._watchers()}") from error
        return found

    def _watchers(self) -> str:
        """Return whether the overview is read still, and what its reader printed."""
        last_s = now() - self.lines[-1]["at"] if self.lines else float("inf")
        printed = self.log("watcher")[-2_000:] or "empty"
        return f"the last reading ended {last_s:.0f} s ago; log of the reader: {printed}"

    def said(self, since: float) -> list[str]:
        """Return the distinct headlines since a time."""
        return list(dict.fromkeys(line["sentence"] for line in self.lines if line["at"] >= since))

    def settle(self, timeout_s: float = CALM_S) -> None:
        """Wait for a reading that begins now or later and says nothing but what lasts.

        Raises:
            AssertionError: there was none, and what the last one said.
        """
        began = now()

        def calm() -> bool:
            line = self.lines[-1] if self.lines else None
            if line is None or line["at"] - line["took_s"] < began:
                return False
            return all(LASTING.match(found["name"]) for found in line["findings"])

        try:
            wait_for(calm, timeout_s)
        except AssertionError as error:
            said = self.lines[-1]["findings"] if self.lines else "nothing"
            raise AssertionError(f"still said: {said}; {self._watchers()}") from error

    def manage(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def diagnoses(self) -> list[dict[str, Any]]:
        """Return the causes that ``diagnose`` names, in their order: those of an earlier situation may last."""
        command = [sys.executable, str(ROOT / "manage.py"), "switchyard", "diagnose", "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode in (1, 2), done.stderr
        told = json.loads(done.stdout)
        return [told["diagnosis"], *told["others"]]

    def watch(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a reader of the overview, and return it when it has added its first line."""
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                command, env={**self.environment, **environment}, cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.processes[name] = process
        began = threading.Event()

        def read() -> None:
            with contextlib.suppress(ValueError):  # closed at the end
                for line in process.stdout:
                    self.lines.append(json.loads(line))
                    began.set()

        threading.Thread(target=read, daemon=True).start()
        wait_for(began.is_set, START_S, what=f"first line of {name}")
        return process


class Yards:
    """The yard of a module's tests: each gets a calm one, and one that a test left in disorder is replaced.

    Args:
        make: Start a yard in a folder, with its servers.
    """

    def __init__(
        self, make: Callable[[Path], contextlib.AbstractContextManager[WatchedYard]], folders: pytest.TempPathFactory
    ) -> None:
        self._make, self._folders = make, folders
        self._stack = contextlib.ExitStack()
        self._yard: WatchedYard | None = None

    def calm(self) -> WatchedYard:
        """Return a yard of which nothing is said but what lasts."""
        if self._yard is not None:
            try:
                self._yard.settle(30)
            except AssertionError:
                self.close()
        if self._yard is None:
            self._yard = self._stack.enter_context(self._make(self._folders.mktemp("verdicts")))
        return self._yard

    def close(self) -> None:
        self._yard = None
        self._stack.close()


@contextlib.contextmanager
def watched_yard(folder: Path, postgres: PostgresUnderTest | None = None) -> Iterator[WatchedYard]:
    """A yard that runs and is calm, with a server of its own."""
    with ServerUnderTest(folder / "server") as server:
        yard = WatchedYard(folder, server, postgres)
        try:
            yard.start()
            yield yard
        finally:
            yard.stop()


@contextlib.contextmanager
def endpoint() -> Iterator[tuple[str, dict[str, int]]]:
    """Serve HTTP that answers 500; give its URL, and the status, which may be changed."""
    answer = {"status": 500}

    class Endpoint(Answering):
        def do_POST(self) -> None:
            self.body()
            self.answer(answer["status"])

    with answers_of(Endpoint) as port:
        yield f"http://127.0.0.1:{port}/", answer


def slack() -> float:
    """Return how many times as long everything takes on this machine now: more work than cores stretches time."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for the time of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: _stands_still(pid), what=f"every thread of {pid} stopped")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """Return whether every thread of a process is stopped: on a busy machine one may go on for a moment."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@contextlib.contextmanager
def steadily(act: Callable[[], object], every_s: float) -> Iterator[None]:
    """Act every so often in a thread for the time of the block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def now() -> float:
    """Return the time, as the watcher writes it."""
    return time.time()
