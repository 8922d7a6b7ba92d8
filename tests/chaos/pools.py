"""Real pools, as a deployment runs them, on a yard of :mod:`tests.chaos.yard.yards`, and what is sent to them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.wiring import build_yard
from tests.chaos.ledger import Account, Entry, Ledger
from tests.chaos.load import QUEUE, declare_job, enqueue
from tests.chaos.yard.yards import YARDS
from tests.processes import titles_below
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MANAGE = (sys.executable, str(ROOT / "manage.py"))
BRIEF_LEASES, USUAL = "tests.chaos.yard.brief_leases", "tests.chaos.yard.settings"
MOST_ROUNDS = 6


@dataclass
class RunningPool:
    """A ``runpool`` or ``runpools`` that was started.

    Args:
        log_path: What it and its children print.
        start_s: Time that it took to be ready. A child that begins with a new interpreter takes as long, which is more
            than the figures of a test allow on a machine that is busy with something else.
    """

    process: subprocess.Popen[bytes]
    log_path: Path
    start_s: float = 0.0

    @property
    def pid(self) -> int:
        """Of the supervisor, or of the parent of several."""
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, pattern: str, timeout_s: float = 60.0) -> str:
        """Wait until something that matches was printed, and return it.

        Raises:
            AssertionError: it was not, and what was instead.
        """
        try:
            return wait_for(lambda: (found := re.search(pattern, self.log())) and found.group(), timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} not in the log after {timeout_s} s:\n{self.log()[-4_000:]}") from error

    def children(self) -> dict[str, int]:
        """Return title -> pid of what runs below it."""
        return titles_below(self.pid)

    @classmethod
    def started(cls, command: Sequence[str], log: Path, **options: Any) -> Self:
        """Start a command in a process group of its own."""
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options)
        return cls(process, log)

    def signal_all(self, signum: int) -> None:
        """Signal it and everything below, the supervisor first."""
        for pid in (self.pid, *self.children().values()):
            os.kill(pid, signum)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


class Pools:
    """Starts pools of one yard on one server, each in a process group of its own; ends them all.

    Args:
        yard: Name of one of :data:`tests.chaos.yard.yards.YARDS`.
    """

    def __init__(self, folder: Path, ledger: Ledger, url: str, yard: str) -> None:
        self._folder, self._ledger, self._url, self._yard = folder, ledger, url, yard
        self._started: list[RunningPool] = []
        self.broker: Any = self.build()
        for queue in YARDS[yard].queues:
            declare_job(self.broker, ledger, queue.name)

    def build(self) -> Any:
        return build_yard(YARDS[self._yard], connect(self._url), Keys())

    def addresses(self, url: str) -> dict[str, str]:
        """Return the environment variables that name the servers.

        Args:
            url: Instead of the address of the server of the messages.
        """
        return {"SWITCHYARD_BROKER_URL": url or self._url}

    def start(
        self, *arguments: str, url: str = "", settings: str = "tests.chaos.yard.settings", ready: bool = True
    ) -> RunningPool:
        """Start ``manage.py`` with arguments and wait until its pools are ready.

        Args:
            url: Instead of the server's own address, such as that of a proxy.
        """
        folder = Path(tempfile.mkdtemp(prefix="pool-", dir=self._folder))
        environment = {
            **os.environ, "DJANGO_SETTINGS_MODULE": settings, **self.addresses(url),
            "SWITCHYARD_STATE_DIR": str(folder), "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "CHAOS_LEDGER": str(self._ledger.path), "CHAOS_YARD": self._yard,
        }  # fmt: skip
        began_s = time.monotonic()
        pool = RunningPool.started([*MANAGE, *arguments], folder / "log", cwd=folder, env=environment)
        self._started.append(pool)
        if ready:
            pool.wait_for_log("pools: all ready" if arguments[0] == "runpools" else f"pool {arguments[1]}: ready")
            pool.start_s = time.monotonic() - began_s
        return pool

    def drain_all(self) -> None:
        """Have all end in peace. A child of a killed supervisor may take a message with it, until its lease lapses."""
        for pool in self._started:
            pool.process.terminate()
        for pool in self._started:
            pool.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._started:
            pool.kill()
        self.broker.close()
        self.broker.client.close()


def started(ledger: Ledger, job: str, times: int = 1, timeout_s: float = 60.0) -> Entry:
    """Wait until a job has started so many times, and return where and when the last of them was."""
    return wait_for(lambda: ledger.of("started", job)[times - 1 :], timeout_s, what=f"start {times} of {job}")[-1]


def begin(pools: Pools, ledger: Ledger, jobs: list[str], ms: int, how: str = "sleep", queue: str = QUEUE) -> None:
    for job in jobs:
        enqueue(pools.broker, ledger, job, ms, how, queue=queue)
    for job in jobs:
        started(ledger, job)


def buried(pools: Pools, ledger: Ledger, job: str, queue: str = QUEUE) -> tuple[DeadLetter, Account]:
    """Return the one dead letter, which is that of a job, and the account: no other is lost."""
    [letter] = facilities(pools.broker).transport.dead_letters(queue).items
    ledger.note("buried", letter.id)
    found = ledger.account()
    assert (letter.id, found.dead, found.lost, found.unexpected) == (job, (job,), (), ())
    return letter, found


def report_of(pools: Pools, name: str) -> PoolReport:
    return next(report for report in facilities(pools.broker).pools.read_all() if report.pool == name)


def restarts(pools: Pools, name: str) -> dict[str, int]:
    return report_of(pools, name).restarts


class Host:
    """A host that starts its container again whenever its processes have ended, and counts the kills."""

    def __init__(self, pools: Pools, settings: str) -> None:
        self._pools, self._settings = pools, settings
        self.rounds, self.failed_starts = 0, list[str]()
        self.pool = self._start()

    def restart_if_gone(self) -> bool:
        """Start the pool again if it has ended, and return whether it runs still."""
        if self.pool.process.poll() is None:
            return True
        if self.pool.process.returncode == -signal.SIGKILL:
            self.rounds += 1
        else:
            self.failed_starts.append(self.pool.log()[-2_000:])
        self.pool = self._start()
        return False

    def kill(self) -> None:
        self.pool.signal_all(signal.SIGKILL)
        self.pool.process.wait()
        self.pool = self._start()

    def _start(self) -> RunningPool:
        return self._pools.start("runpool", "work", settings=self._settings, ready=False)


def fell_until_buried(
    pools: Pools, ledger: Ledger, *, ms: int, neighbours: int, settings: str, wait_until_done: Callable[[], None]
) -> None:
    """Run a message that ends its container among neighbours; only it becomes a dead letter, after six rounds.

    Args:
        ms: Milliseconds that it runs before.
    """
    transport = facilities(pools.broker).transport
    for number in range(neighbours):
        enqueue(pools.broker, ledger, f"good-{number}.", 20)
        if number == neighbours // 2:
            enqueue(pools.broker, ledger, "pill", ms, "fell")
    host = Host(pools, settings)

    def buried() -> Sequence[DeadLetter]:
        host.restart_if_gone()
        return transport.dead_letters(QUEUE).items

    [letter] = wait_for(buried, 500, what="a dead letter")
    ledger.note("buried", letter.id)
    wait_until_done()

    found, felled = ledger.account(), len(ledger.of("started", "pill"))
    print(f"{host.rounds} rounds, {felled} starts of the pill")
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())
    assert (letter.id, letter.reason) == ("pill", "suspected_poison")
    assert felled == host.rounds <= MOST_ROUNDS, (felled, host.rounds, host.failed_starts)
    assert f"on {socket.gethostname()}" in letter.error
    times = re.findall(r"found expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, on host (\S+)", letter.traceback)
    assert times == [socket.gethostname()] * 5


def kill_five_times(
    pools: Pools, ledger: Ledger, *, jobs: int, ms: int, settings: str, wait_until_done: Callable[[], None]
) -> Account:
    """Run jobs on a host that is killed five times; no message is blamed, all complete."""
    host = Host(pools, settings)
    for number in range(jobs):
        enqueue(pools.broker, ledger, f"good-{number}.", ms)
    for _ in range(5):
        started = len(ledger.jobs("started"))
        wait_for(lambda: len(ledger.jobs("started")) > started, 120, what="more jobs started")  # noqa: B023
        host.kill()

    wait_until_done()

    found = ledger.account()
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    assert (found.lost, found.unexpected, len(found.completed)) == ((), (), jobs)
    return found
