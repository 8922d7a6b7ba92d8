"""Starts the parts in order, keeps them running, and stops them in the opposite order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from broker.errors import SwitchyardError
from demo.errors import PartFailed, Stopped
from demo.parts import Part, last_lines

POLL_S = 0.1
SETTLED_S = 30.0
LONGEST_PAUSE_S = 30.0


@dataclass
class Watch:
    """What the manager remembers of a part."""

    part: Part
    started_at: float = 0.0
    restart_at: float | None = None
    failures: int = 0
    is_ready: bool = False


class ProcessManager:
    """Owns every process of a demo. Use it from the main thread: children end with the thread that made them.

    Args:
        tell: Takes one line for people when something happens to a part.
        is_stopping: Whether somebody asked the demo to stop.
        is_in_a_hurry: Whether they asked again: parts are then killed instead of drained.
        wait: Sleeps for so many seconds, less when something happens.
    """

    def __init__(
        self,
        *,
        tell: Callable[[str], None],
        is_stopping: Callable[[], bool] = lambda: False,
        is_in_a_hurry: Callable[[], bool] = lambda: False,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._tell = tell
        self._is_stopping = is_stopping
        self._is_in_a_hurry = is_in_a_hurry
        self._wait = wait
        self._stages: list[list[Watch]] = []

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id of every part that runs."""
        return {watch.part.name: watch.part.pid for watch in self._watches() if watch.part.pid is not None}

    def start(self, *stages: Sequence[Part]) -> None:
        """Start all parts at once and wait until each is ready. What is started later is stopped earlier.

        Raises:
            PartFailed: one ended, or was not ready in time; the others go on until :meth:`stop`.
            Stopped: somebody asked to stop meanwhile.
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
            PartFailed: it did not end well, or not in time.
            Stopped: somebody asked to stop meanwhile.
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

    def tend(self) -> bool:
        """Start again what has died. Call it often. Returns whether anything changed."""
        changed = False
        for watch in self._watches():
            code = watch.part.exit_code()
            if code is None:
                changed |= self._notice_ready(watch)
            elif watch.restart_at is None:
                self._plan_restart(watch, f"ended with {describe_exit(code)}")
                changed = True
            elif time.monotonic() >= watch.restart_at:
                self._restart(watch)
                changed = True
        return changed

    def stop(self) -> None:
        """Stop everything, stage by stage, the last started first. A part that takes too long is killed, and said."""
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

    def _notice_ready(self, watch: Watch) -> bool:
        if watch.is_ready or watch.part.missing():
            return False
        watch.is_ready = True
        self._tell(f"{watch.part.name} is back")
        return True

    def _plan_restart(self, watch: Watch, fact: str) -> None:
        watch.is_ready = False
        if time.monotonic() - watch.started_at > SETTLED_S:
            watch.failures = 0
        pause_s = min(2.0**watch.failures - 1, LONGEST_PAUSE_S)
        watch.failures += 1
        watch.restart_at = time.monotonic() + pause_s
        when = f"in {pause_s:g} s" if pause_s else "now"
        self._tell(f"{watch.part.name} {fact}; starting it again {when}; its log is {watch.part.log_path}")

    def _restart(self, watch: Watch) -> None:
        watch.restart_at = None
        try:
            self._start(watch)
        except PartFailed as error:
            self._plan_restart(watch, f"did not start ({error})")

    def _wait_for_end(self, part: Part, deadline: float) -> None:
        while part.pid is not None and time.monotonic() < deadline and not self._is_in_a_hurry():
            time.sleep(POLL_S)
        if part.pid is None:
            return
        if not self._is_in_a_hurry():
            self._tell(f"{part.name} did not end within {part.stop_timeout_s:g} s: killed; its log is {part.log_path}")
        kill(part)

    def _pause(self) -> None:
        if self._is_stopping():
            raise Stopped("stopped before everything was ready")
        self._wait(POLL_S)


def kill(part: Part) -> None:
    """Kill a part and wait until it is gone."""
    part.kill()
    while part.pid is not None:
        time.sleep(POLL_S)


def describe_exit(code: int) -> str:
    """Return an exit code in words; a negative one is the signal that killed the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _failure(part: Part, fact: str) -> PartFailed:
    return PartFailed(part.name, fact, part.log_path, last_lines(part.log_path, part.log_start_bytes))
