"""Process manager: starts the parts in order, restarts those that die, stops them in the opposite order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from demo.errors import PartFailed, Stopped
from demo.processes import BrokerPart, CommandPart, last_lines
from switchyard.broker.errors import SwitchyardError

POLL_S = 0.1
SETTLED_S = 30.0
LONGEST_PAUSE_S = 30.0


Part: TypeAlias = CommandPart | BrokerPart


@dataclass
class Watch:
    """State of a managed part."""

    part: Part
    started_at: float = 0.0
    restart_at: float | None = None
    failures: int = 0
    is_ready: bool = False


class ProcessManager:
    """Owner of every process of a demo. Use it from the main thread: children end with the thread that started them.

    Args:
        report: Called with one line of text when a part dies, returns or is killed.
        is_stopping: Whether a stop was requested.
        is_forced: Whether parts are killed instead of drained.
        wait: Sleeps for so many seconds, less when a stop is requested.
    """

    def __init__(
        self,
        *,
        report: Callable[[str], object],
        is_stopping: Callable[[], bool] = lambda: False,
        is_forced: Callable[[], bool] = lambda: False,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._report = report
        self._is_stopping = is_stopping
        self._is_forced = is_forced
        self._wait = wait
        self._stages: list[list[Watch]] = []

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id of every running part."""
        return {watch.part.name: watch.part.pid for watch in self._watches() if watch.part.pid is not None}

    def start(self, *stages: Sequence[Part]) -> None:
        """Start all parts at once and wait until each is ready. Later stages are stopped first.

        Raises:
            PartFailed: a part ended, or was not ready in time; the others run until :meth:`stop`.
            Stopped: a stop was requested meanwhile.
        """
        watches = []
        for stage in stages:
            self._stages.append([])
            for part in stage:
                watch = Watch(part)
                self._stages[-1].append(watch)
                watches.append(watch)
                self._start(watch)
        pending = watches
        while pending:
            pending = [watch for watch in pending if not self._became_ready(watch)]
            if pending:
                self._pause()

    def run(self, part: Part) -> None:
        """Run a part to its end, which must come within its ready timeout.

        Raises:
            PartFailed: it failed, or did not end in time.
            Stopped: a stop was requested meanwhile.
        """
        watch = Watch(part)
        self._start(watch)
        try:
            while (code := part.exit_code()) is None:
                if time.monotonic() > watch.started_at + part.ready_timeout_s:
                    raise _failure(part, f"did not finish within {part.ready_timeout_s:g} s")
                self._pause()
        finally:
            kill(part)
        if code != 0:
            raise _failure(part, f"ended with {describe_exit(code)}")

    def restart_dead(self) -> bool:
        """Restart the parts that have died and return whether any state changed. Call it several times a second."""
        changed = False
        for watch in self._watches():
            code = watch.part.exit_code()
            if code is None:
                changed |= self._report_return(watch)
            elif watch.restart_at is None:
                self._plan_restart(watch, f"ended with {describe_exit(code)}")
                changed = True
            elif time.monotonic() >= watch.restart_at:
                self._restart(watch)
                changed = True
        return changed

    def stop(self) -> None:
        """Stop every part, stage by stage, the last started first; kill and report a part over its stop timeout."""
        for stage in reversed(self._stages):
            deadlines = {}
            for watch in stage:
                if watch.part.pid is not None:
                    deadlines[watch.part.name] = time.monotonic() + watch.part.stop_timeout_s
                    watch.part.terminate()
            for watch in stage:
                self._wait_for_end(watch.part, deadlines.get(watch.part.name, 0.0))
        self._stages.clear()

    def _watches(self) -> Iterator[Watch]:
        for stage in self._stages:
            yield from stage

    def _start(self, watch: Watch) -> None:
        watch.started_at = time.monotonic()
        try:
            watch.part.start()
        except (OSError, SwitchyardError) as error:
            raise _failure(watch.part, str(error)) from error

    def _became_ready(self, watch: Watch) -> bool:
        part = watch.part
        code = part.exit_code()
        if code is not None:
            raise _failure(part, f"ended with {describe_exit(code)} at start")
        missing = part.missing()
        if missing and time.monotonic() > watch.started_at + part.ready_timeout_s:
            raise _failure(part, f"was not ready within {part.ready_timeout_s:g} s ({missing})")
        watch.is_ready = not missing
        return watch.is_ready

    def _report_return(self, watch: Watch) -> bool:
        if watch.is_ready or watch.part.missing():
            return False
        watch.is_ready = True
        self._report(f"{watch.part.name} is back")
        return True

    def _plan_restart(self, watch: Watch, fact: str) -> None:
        watch.is_ready = False
        if time.monotonic() - watch.started_at > SETTLED_S:
            watch.failures = 0
        pause_s = min(2.0**watch.failures - 1, LONGEST_PAUSE_S)
        watch.failures += 1
        watch.restart_at = time.monotonic() + pause_s
        when = f"in {pause_s:g} s" if pause_s else "now"
        self._report(f"{watch.part.name} {fact}; starting it again {when}; its log is {watch.part.log_path}")

    def _restart(self, watch: Watch) -> None:
        watch.restart_at = None
        try:
            self._start(watch)
        except PartFailed as error:
            self._plan_restart(watch, f"did not start ({error})")

    def _wait_for_end(self, part: Part, deadline: float) -> None:
        while part.pid is not None and time.monotonic() < deadline and not self._is_forced():
            time.sleep(POLL_S)
        if part.pid is None:
            return
        if not self._is_forced():
            self._report(
                f"{part.name} did not end within {part.stop_timeout_s:g} s: killed; its log is {part.log_path}"
            )
        kill(part)

    def _pause(self) -> None:
        if self._is_stopping():
            raise Stopped("stopped before everything was ready")
        self._wait(POLL_S)


def kill(part: Part) -> None:
    """Kill a part and wait until it has ended."""
    part.kill()
    while part.pid is not None:
        time.sleep(POLL_S)


def describe_exit(code: int) -> str:
    """Return an exit code as text; a negative one is the signal that killed the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _failure(part: Part, fact: str) -> PartFailed:
    return PartFailed(part.name, fact, part.log_path, last_lines(part.log_path, part.log_start_bytes))
