"""Runs of pytest beside each other, and once more alone what failed there."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.runner.outcomes import Outcomes, read

# Tests wait for processes and leases more than half of their time: with four more lanes, two cores idled for 25 %.
LANES = len(os.sched_getaffinity(0)) + 6
MOST_UNSTEADY = 5
MOST_AGAIN = 20  # a change that breaks more is red, and known sooner
NO_TESTS = 5  # pytest's exit code
# A network without other devices: a change of one that a browser of another run sees ends its requests.
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')


@dataclass(frozen=True)
class Run:
    """A run of pytest.

    Args:
        name: Unique in a run of ``bin/test``; the name of its log.
        arguments: Those of pytest.
        database: What ``TEST_DATABASE`` is.
        live: Shown as it runs, instead of in a log, and alone: what fails is not run again.
        own_network: It makes devices: where this account may, in a network that no other run sees.
    """

    name: str
    arguments: tuple[str, ...]
    database: str = "sqlite"
    live: bool = False
    own_network: bool = False


class Lanes:
    """Run pytest, print each run when it ends, and keep what became of every test.

    Args:
        root: Folder that pytest starts in.
        logs: Folder for logs; they are kept.
        environment: Of each run.
    """

    def __init__(self, root: Path, logs: Path, environment: dict[str, str]) -> None:
        self.passed = self.skipped = 0
        self.red: list[str] = []
        self.unsteady: list[str] = []
        self._root, self._logs, self._environment = root, logs, environment
        self._again: list[tuple[Run, str]] = []
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, runs: Iterable[Run]) -> list[Future[None]]:
        """Run these beside each other: whichever lane is free takes the next."""
        self._pool = ThreadPoolExecutor(LANES)
        return [self._pool.submit(self.run, run) for run in runs]

    def stop(self) -> None:
        """End what runs, as Ctrl-C does."""
        self._stopped = True
        for process in list(self._running):
            process.send_signal(signal.SIGINT)
        for process in list(self._running):
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()

    def run(self, run: Run) -> None:
        """Run pytest once. What fails beside others and is not exact is kept for :meth:`run_failed_again`."""
        if self._stopped:
            return
        started = time.monotonic()
        code, log, found = self._pytest(run)
        crashed = code not in (0, 1, NO_TESTS) or not found.ended or (code == 1 and not found.failed)
        again = [] if crashed or run.live else [test for test, exact in found.failed.items() if not exact]
        with self._lock:
            self.passed += len(found.passed)
            self.skipped += len(found.skipped)
            self.red += [test for test in found.failed if test not in again]
            self._again += [(run, test) for test in again]
            if crashed:
                self.red.append(f"pytest of {run.name}, which ended with code {code}")
            if found.failed or crashed or found.passed or not found.skipped:
                row("FAILED" if found.failed or crashed else "ok", run.name, started, f"{len(found.passed)} passed")
            else:
                row("left out", run.name, started, "; ".join(dict.fromkeys(found.skipped.values())))
            if (found.failed or crashed) and not run.live:
                print(log.read_text(errors="replace"), flush=True)

    def run_failed_again(self) -> None:
        """Run what failed beside others alone, twice: green in both is unsteady."""
        if len(self._again) > MOST_AGAIN:
            print(f"{len(self._again)} tests failed, more than {MOST_AGAIN}: none is run again", flush=True)
            self.red += [test for _, test in self._again]
            return
        for number, (run, test) in enumerate(self._again, start=1):
            started = time.monotonic()
            for time_of in ("once", "twice"):
                alone = replace(run, name=f"alone {number} {time_of}", arguments=(test,))
                code, log, found = self._pytest(alone)
                if code or not found.passed:
                    self.red.append(test)
                    row("FAILED", test, started, "alone as well")
                    print(log.read_text(errors="replace"), flush=True)
                    break
            else:
                self.passed += 1
                self.unsteady.append(test)
                row("UNSTEADY", test, started, f"failed beside others, passed twice alone; see {self._log(run)}")

    def print_totals(self) -> bool:
        """Print the counts, those of unsteady tests in the last line, and return whether all is well."""
        if self.red:
            print("failed:", *self.red, sep="\n  ")
        if len(self.unsteady) > MOST_UNSTEADY:
            print(f"failed: {len(self.unsteady)} tests are unsteady, more than {MOST_UNSTEADY}")
        total = f"{self.passed} passed, {len(self.red)} failed"
        print(total, f"{total}, {self.skipped} skipped; {len(self.unsteady)} unsteady", sep="\n", flush=True)
        return not self.red and len(self.unsteady) <= MOST_UNSTEADY

    def _log(self, run: Run) -> Path:
        return self._logs / f"{run.name.replace('/', '-of-').replace(' ', '-')}.log"

    def _pytest(self, run: Run) -> tuple[int, Path, Outcomes]:
        log = self._log(run)
        outcomes = log.with_suffix(".outcomes")
        network = OWN_NETWORK if run.own_network and _may_make_networks() else ()
        plugin = ("-p", "tests.runner.outcomes", f"--outcomes={outcomes}")
        command = [*network, sys.executable, "-m", "pytest", *plugin, *run.arguments]
        # Temporary folders of its own: pytest removes those of earlier runs, and fails where another one does so too.
        folder = tempfile.mkdtemp(prefix="py")
        environment = {**self._environment, "TEST_DATABASE": run.database, "PYTEST_DEBUG_TEMPROOT": folder}
        with log.open("wb") as file:
            files = {} if run.live else {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
            # In a session of its own Ctrl-C reaches it once, by `stop`.
            process = subprocess.Popen(
                command, cwd=self._root, env=environment, start_new_session=not run.live, **files
            )
        self._running.add(process)
        try:
            return process.wait(), log, read(outcomes)
        finally:
            self._running.discard(process)
            if process.returncode == 0:  # else they may tell why
                shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _may_make_networks() -> bool:
    try:
        return subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:  # no unshare
        return False


def row(outcome: str, name: str, started: float, note: str = "") -> None:
    print(f"  {outcome:<8}  {name:<22} {time.monotonic() - started:7.1f} s  {note}".rstrip(), flush=True)
