"""One run of one peer: a fresh server, a sender, workers, and the records that its tasks write."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import Environments
from benchmarks.memory_cluster import MemoryCluster
from benchmarks.peers import Peer
from benchmarks.records import LAYOUT, Record, read
from benchmarks.sending import PeerFailed, Sender, end, pipe
from benchmarks.server import MemoryServer
from switchyard.workers.shared.fork import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
MEMORY_DIR = Path("/dev/shm")
PROBE_EVERY_S = 0.1
FILL_AT_ONCE = 50_000


class Stage:
    """Server, sender, workers and records of one run.

    ``with Stage(peer, environments) as stage: stage.start_workers(1, slots=8)``; leaving it ends every process.

    Args:
        variables: For the environment of every process, above the peer's own; ``BENCH_RABBITMQ_URL`` names a server of
            another stage, which this one shares.
    """

    def __init__(self, peer: Peer, environments: Environments, **variables: str) -> None:
        self.peer = peer
        self._more_variables = variables
        self.workers: list[subprocess.Popen[str]] = []
        self._environments = environments
        self._away_ms = 0.0
        self._masters = 0
        self._open = contextlib.ExitStack()

    def away(self, one_way_ms: float) -> Stage:
        """Put a proxy in front of the server that delays every byte in each direction."""
        self._away_ms = one_way_ms
        return self

    def on_cluster(self, masters: int) -> Stage:
        """Put the tasks on a cluster of so many masters; of none, on one server."""
        self._masters = masters
        return self

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as stack:
            in_memory = MEMORY_DIR if MEMORY_DIR.is_dir() else None
            self.folder = Path(tempfile.mkdtemp(prefix="switchyard-bench-", dir=in_memory))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.records_path = self.folder / "records"
            self.records_path.touch()
            self.server: Any = stack.enter_context(
                MemoryCluster(self.folder / "valkeys", self._masters)
                if self._masters
                else MemoryServer(self.folder / "valkey")
            )
            self._database_url = stack.enter_context(self._environments.database(self.peer))
            given = self._more_variables.get("BENCH_RABBITMQ_URL", "")
            self.rabbitmq_url = given or stack.enter_context(self._environments.rabbitmq(self.peer))
            self.url = self.server.url if self._away_ms == 0 else self._proxy(stack)
            if self.peer.keeps_history:
                self._start_history(stack)
            stack.callback(self._end_workers)
            self.sender = Sender(self._sender_process(stack), self.folder / "sender.log")
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start_workers(
        self, count: int, *, slots: int, queue: str = "", timeout_s: float = 60.0, **environment: str
    ) -> None:
        """Start worker commands, each in a process group of its own, and wait until every one has run a task.

        Args:
            queue: The only queue they serve; all by default.
        """
        where = {"queue": queue} if queue else {}
        if queue:
            environment["BENCH_QUEUES"] = queue
        started = [self.start_worker(slots, **environment) for _ in range(count)]
        self._warm_up(started, where, timeout_s)

    def start_worker(self, slots: int, **environment: str) -> int:
        """Start one worker command, do not wait for it, and return its index."""
        index = len(self.workers)
        command = self._environments.worker(self.peer, slots)
        self.workers.append(self._process(command, f"worker-{index}", BENCH_WORKER=str(index), **environment))
        return index

    def pause_workers(self) -> None:
        """Pause every worker process, so that a backlog grows and all start on it at once."""
        self.signal_workers(signal.SIGSTOP)

    def resume_workers(self) -> None:
        """Resume every worker process."""
        self.signal_workers(signal.SIGCONT)

    def signal_workers(self, signum: signal.Signals) -> None:
        """Send a signal to every process of every worker."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signum)

    def fill(self, count: int, **options: Any) -> None:
        """Enqueue tasks as fast as the library can."""
        for start in range(0, count, FILL_AT_ONCE):
            enqueue = self.sender.bulk if self.peer.bulk else self.sender.one_by_one
            enqueue(min(FILL_AT_ONCE, count - start), first=start, **options)

    def wait_for_records(self, count: int, *, timeout_s: float = 120.0) -> list[Record]:
        """Wait until ``count`` tasks have started, and return their records in the order of their starts."""
        self._wait(lambda: self._size() >= count, timeout_s, lambda: f"{self._size()} of {count} tasks started")
        return self.records()

    @contextlib.contextmanager
    def metered(self, name: str, tasks: int, into: dict[str, float]) -> Iterator[None]:
        """Note what happens meanwhile costs the server for each of so many tasks."""
        before = self.server.usage()
        yield
        if self.peer.on_server:
            used = self.server.usage().since(before)
            into[f"{name}_server_us_per_task"] = used.cpu_s * 1e6 / tasks
            into[f"{name}_commands_per_task"] = used.commands / tasks

    def wait_until(
        self, condition: Callable[[list[Record]], bool], what: str, *, timeout_s: float = 120.0
    ) -> list[Record]:
        """Wait until the records fulfil a condition, and return them."""
        self._wait(lambda: condition(self.records()), timeout_s, lambda: what)
        return self.records()

    def records(self) -> list[Record]:
        """Return the records there are, in the order of their starts."""
        return sorted(read(self.records_path), key=lambda record: record.started_s)

    def log(self) -> str:
        """Return the output of the processes."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def _proxy(self, stack: contextlib.ExitStack) -> str:
        self.url = self.server.url
        command = [sys.executable, "-m", "benchmarks.delay_proxy", str(self.server.port), str(self._away_ms)]
        proxy = self._process(command, "proxy", stdout=subprocess.PIPE)
        stack.callback(end, proxy)
        return f"redis://127.0.0.1:{int(pipe(proxy.stdout).readline())}/0"

    def migrate(self) -> None:
        """Create the tables of a yard of real commands.

        Raises:
            PeerFailed: the command failed.
        """
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.supervised_yard.settings"}
        migrating = self._process([sys.executable, "manage.py", "migrate", "--verbosity=0"], "migrate", **settings)
        if migrating.wait() != 0:
            raise PeerFailed(f"{self.peer.name}: manage.py migrate\n{self.log()}")

    def _start_history(self, stack: contextlib.ExitStack) -> None:
        """Create the tables, and start the history writer on the yard of this peer's queues."""
        self.migrate()
        settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.supervised_yard.settings"}
        writer = self._process([sys.executable, "manage.py", "runhistory"], "history", BENCH_LOGS="1", **settings)
        stack.callback(end, writer)
        self._wait(lambda: "this process writes the history" in self.log(), 60.0, lambda: "the history writer began")

    def _sender_process(self, stack: contextlib.ExitStack) -> subprocess.Popen[str]:
        command = self._environments.sender(self.peer)
        process = self._process(command, "sender", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(end, process)
        return process

    def _process(
        self, command: list[str], name: str, *, stdin: Any = subprocess.DEVNULL, stdout: Any = None, **environment: str
    ) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **self._variables(), **environment},
                stdin=stdin,
                stdout=stdout or log,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def _variables(self) -> dict[str, str]:
        return {
            "BENCH_URL": self.url,
            "BENCH_RABBITMQ_URL": self.rabbitmq_url,
            "BENCH_RECORDS": str(self.records_path),
            "BENCH_WORKER": "0",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SWITCHYARD_STATE_DIR": str(self.folder / "yard"),
            "SWITCHYARD_BROKER_URL": self.url,
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"),
            "DATABASE_URL": self._database_url or f"sqlite:///{self.folder / 'db.sqlite3'}",
            **self._environments.variables(self.peer),
            **self.peer.environment,
            **self._more_variables,
        }

    def _warm_up(self, started: Sequence[int], where: dict[str, str], timeout_s: float) -> None:
        """Send probes until every new worker has run one, wait for the last of them, and discard their records."""
        sent, seen = 0, set[int]()
        deadline = time.monotonic() + timeout_s
        while not seen.issuperset(started):
            if time.monotonic() > deadline or any(self.workers[index].poll() is not None for index in started):
                raise PeerFailed(f"{self.peer.name}: {len(seen)} of {len(started)} workers run\n{self.log()}")
            self.sender.probe(4 * len(started), **where)
            sent += 4 * len(started)
            time.sleep(PROBE_EVERY_S)
            seen = {fields[2] for fields in LAYOUT.iter_unpack(self.records_path.read_bytes())}
        self._wait(lambda: self._size() >= sent, timeout_s, lambda: f"{self._size()} of {sent} probes ran")
        os.truncate(self.records_path, 0)

    def _size(self) -> int:
        return self.records_path.stat().st_size // LAYOUT.size

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise PeerFailed(f"{self.peer.name}: not within {timeout_s:g} s: {what()}\n{self.log()}")
            time.sleep(0.005)

    def _end_workers(self) -> None:
        self.signal_workers(signal.SIGKILL)
        for worker in self.workers:
            worker.wait()
