"""Reports of a pool's state, written to the broker every 2 s; what operators left there; and its counts for the facts.

Counts are read every 10 s from the children's metrics files, which outlast a killed child.
"""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import struct
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from switchyard.broker.clock import CLOCK, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.server_clock import ServerClock
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.pool_reports import (
    ChildStacks,
    Instruction,
    Notices,
    PoolReport,
    PoolReports,
    ReportedChild,
    SilentChild,
    Stack,
)
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.topology import Pool
from switchyard.conf import settings_digest, switchyard_settings
from switchyard.middleware.metrics import BUCKETS_S, MOST_HOSTS, OWNER_ATTEMPTS, OWNER_SECONDS, BoundedLabels
from switchyard.workers.shared.fork import resident_bytes, stacks_file
from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.processes import send

EVERY_S = 2.0
AFTER_FAILURE_S = 5.0

logger = logging.getLogger("switchyard.workers")


class Reporter:
    """Writer of a pool's reports. An unavailable broker blocks each write for at most a second."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._host = socket.gethostname()
        self.member = f"{pool.name}:{self._host}:{os.getpid()}"  # the supervisor's name, as in its reports
        self.started_at = now_ms()
        self._last: PoolReport | None = None
        self._away = False
        self._forgot_silent = False
        self._work = WorkDone()
        self._settings = settings_digest()
        # A client of its own: the broker's client waits and retries for longer than a supervisor may block.
        self.calls = calls_on(connect(switchyard_settings().broker_url, profile="quick"), budget_s=1.0)
        self._reports, self._clock = PoolReports(self.calls, Keys()), ServerClock(self.calls)
        self.facts = FactStore(self.calls, Keys())

    def build(self, children: ChildManager, *, silent: list[SilentChild], state: str, metrics_port: int) -> PoolReport:
        """Return a report of the current state."""
        states = [(process.pid, children.rows[process.index].read()) for process in children.running]
        reported: list[ReportedChild] = [
            {
                "pid": pid, "ready": child.works, "busy": child.busy, "done": child.done,
                "rss_bytes": resident_bytes(pid), "quiet": child.quiet,
            }
            for pid, child in states
        ]  # fmt: skip
        self._work.note(reported)
        return PoolReport(
            pool=self._pool.name, host=self._host, pid=os.getpid(), kind=self._pool.kind, slots=self._pool.total_slots,
            busy=sum(child["busy"] for child in reported), started_at=self.started_at, beat_at=now_ms(), state=state,
            children=reported, restarts=dict(children.restarts), crashes=children.recent_crashes(),
            crashed=children.crashed(), silent=silent, metrics_port=metrics_port,
            release=switchyard_settings().release, settings=self._settings, clock_ahead_ms=CLOCK.ahead_ms,
            done=self._work.done, busy_ms=int(self._work.busy_s * 1_000),
        )  # fmt: skip

    def write(self, report: PoolReport, quieted: Instruction | None = None) -> tuple[float, Notices]:
        """Write a report, with the instruction that quieted this pool.

        Returns:
            The seconds until the next is due, and what is asked of this supervisor: stacks, an instruction.
        """
        self._last = report
        try:
            notices = self._reports.write(report, quieted)
            if not self._forgot_silent:
                self._reports.read_beats(report.beat_at)
                self._forgot_silent = True
        except Exception as error:  # noqa: BLE001  whatever a key may hold, the supervisor goes on
            if not self._away:
                kind = error.kind if isinstance(error, BrokerError) else repr(error)
                logger.warning("pool %s: the broker accepts no report: %s", self._pool.name, kind)
            self._away = True
            return AFTER_FAILURE_S, Notices("", None)
        if self._away:
            logger.info("pool %s: the broker accepts reports again", self._pool.name)
        self._away = False
        self._clock.compare()
        return EVERY_S, notices

    def answer_stacks(self, request: str, children: list[ChildStacks]) -> None:
        """Answer a request for the children's stacks. After a failure the next report finds the request again."""
        try:
            self._reports.answer_stacks(request, children)
        except BrokerError as error:
            logger.warning("pool %s: the broker accepts no stacks: %s", self._pool.name, error.kind)

    def remove(self) -> None:
        """Remove the report; it expires by itself if that fails."""
        if self._last is None or self._away:
            return
        try:
            self._reports.remove(self._last)
        except BrokerError as error:
            logger.warning("pool %s: report not removed, it expires by itself: %s", self._pool.name, error.kind)


class WorkDone:
    """Messages that a pool's children ended, and the time that their slots were busy, since the supervisor started.

    Busy slots are sampled with each report. The last messages of a child that ended between two are not counted.
    """

    def __init__(self) -> None:
        self.done = 0
        self.busy_s = 0.0
        self._ended: dict[int, int] = {}  # by pid
        self._busy, self._at_s = 0, time.monotonic()

    def note(self, children: Iterable[ReportedChild]) -> None:
        """Add what happened since the call before."""
        now_s, reported = time.monotonic(), list(children)
        busy = sum(child["busy"] for child in reported)
        self.busy_s += (self._busy + busy) / 2 * (now_s - self._at_s)
        ended = {child["pid"]: child["done"] for child in reported}
        self.done += sum(max(done - self._ended.get(pid, 0), 0) for pid, done in ended.items())
        self._ended, self._busy, self._at_s = ended, busy, now_s


STUCK_S = 30.0


class PoolHealth:
    """Progress of a pool's children, as ``/health`` reports it."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self.reset()

    def reset(self) -> None:
        self._taken, self._taken_s = -1, time.monotonic()

    def unhealthy_reason(self) -> str:
        """Return why the pool does not work; empty when it does: it fetches messages, or none wait.

        It counts as working while the broker is unavailable, or the children are quiet: no restart would help.
        """
        leases = self._children.leases
        if leases.keeper.away or self._children.quiet:
            self._taken_s = time.monotonic()
            return ""
        rows = [self._children.rows[process.index] for process in self._children.own if process.pid]
        if not any(row.working for row in rows):
            return "no child works"
        states = [row.read() for row in rows]
        taken, now_s = sum(state.taken for state in states), time.monotonic()
        if taken != self._taken or any(state.busy for state in states) or not leases.backlog.waiting:
            self._taken, self._taken_s = taken, now_s
        idle_s = now_s - self._taken_s
        return f"messages wait, and none was taken for {idle_s:.0f} s" if idle_s > STUCK_S else ""


class Instructions:
    """Obedience of one supervisor: each instruction once, and none that was meant for a process before it."""

    def __init__(self, children: ChildManager, *, started_at: int, stop: Callable[[], None]) -> None:
        self.quieted: Instruction | None = None
        self._children = children
        self._started_at = started_at
        self._stop = stop
        self._obeyed = ""

    def obey(self, instruction: Instruction) -> bool:
        """Do what an operator asks; return whether that was new. The last instruction counts."""
        meant = instruction.started_at == self._started_at
        if not meant or instruction.id == self._obeyed or self._children.stopping:
            return False
        self._obeyed = instruction.id
        match instruction.verb:
            case "quiet":
                self.quieted = instruction
                self._children.set_quieted(True)
                effect = "quieted: its children fetch and start nothing, what runs ends"
            case "resume":
                self.quieted = None
                self._children.set_quieted(False)
                effect = "takes work again"
            case "stop":
                effect = "told to stop"
                self._stop()
            case other:  # of a newer release
                effect = f"does not know the instruction {other!r}; nothing is changed"
        name, by, reason = self._children.pool.name, instruction.by or "an operator", instruction.reason
        logger.warning("pool %s: %s, by %s%s", name, effect, by, f" ({reason})" if reason else "")
        return True


WAIT_S = 0.5  # for dumps, which children under load write late
MOST_STACKS, MOST_FRAMES, MOST_BYTES = 100, 40, 400_000

_FRAME = re.compile(r'^[\s|:+-]*File "(?P<file>[^"]*)", line (?P<line>\d+),? in (?P<function>[\w.<>]+)\s*$')
# Thread header as faulthandler writes it. Gevent's dump repeats the threads.
_THREAD = re.compile(r"^(?P<current>Current t|T)hread 0x[0-9a-f]+ .*\(most recent call first\)")
_GREENLET = re.compile(r'^[\s|:+-]*<(?P<kind>\w*Greenlet\w*|Hub|greenlet\.greenlet)(?: "(?P<name>[\w.-]+)")?')
# Parts of gevent's dump that are no stack: where a greenlet was spawned, and its locals.
_OTHER = re.compile(r"^[\s|:+-]*(Thread 0x|Spawned at|Parent|Greenlet Locals|Spawn Tree Locals)\b")
_RUNNING = re.compile(r"^[\s|:+-]*(Running|Currently)\b")


class StackRequests:
    """Request for stacks: a signal has children write them, and the answer is sent half a second later."""

    def __init__(self, pool_name: str, answer: Callable[[str, list[ChildStacks]], None]) -> None:
        self._pool_name, self._answer = pool_name, answer
        self._request = self._begun = ""
        self._dumps: dict[int, Dump] = {}
        self._at_s = 0.0

    def begin(self, request: str, pids: Iterable[int]) -> None:
        """Have children write their stacks, for a request. One that was begun before is not begun again."""
        if request == self._begun:
            return
        self._request = self._begun = request
        self._at_s = time.monotonic() + WAIT_S
        self._dumps = {pid: Dump(self._pool_name, pid) for pid in pids}
        for pid in self._dumps:
            os.kill(pid, signal.SIGUSR1)

    def finish(self) -> None:
        """Answer the request when its answer is due."""
        if self._request and time.monotonic() >= self._at_s:
            request, self._request = self._request, ""
            self._answer(request, [ChildStacks(pid, dump.read()) for pid, dump in self._dumps.items()])

    def seconds_to_next(self) -> float:
        """Return in how many seconds an answer is due; infinity for none."""
        return self._at_s - time.monotonic() if self._request else float("inf")


class Dump:
    """Stacks that a child writes to its file after this was made."""

    def __init__(self, pool_name: str, pid: int) -> None:
        self._path, self._offset = stacks_file(pool_name, pid), 0
        with contextlib.suppress(FileNotFoundError):
            self._offset = self._path.stat().st_size

    def read(self) -> list[Stack]:
        """Return them; none of a child that has ended meanwhile."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                return read_stacks(file.read(MOST_BYTES).decode(errors="replace"))
        except FileNotFoundError:
            return []


def read_stacks(text: str) -> list[Stack]:
    """Return the stacks of threads and greenlets in a dump, innermost frame first, as many as fit."""
    stacks: list[Stack] = []
    wanted = False
    for line in text.splitlines():
        if found := _THREAD.match(line):
            stacks.append(Stack("running thread" if found["current"] != "T" else "thread"))
            wanted = True
        elif found := _GREENLET.match(line):
            stacks.append(Stack(f"greenlet {found['name'] or ''}".strip()))
            wanted = True
        elif _RUNNING.match(line):
            wanted = True
        elif _OTHER.match(line):
            wanted = False
        elif wanted and stacks and (found := _FRAME.match(line)) and len(stacks[-1].frames) < MOST_FRAMES:
            stacks[-1].frames.append(f"{_short(found['file'])}:{found['line']} {found['function']}")
    for stack in stacks:
        if stack.of.startswith("greenlet"):
            stack.frames.reverse()  # gevent names the innermost one last
    return [stack for stack in stacks if stack.frames][:MOST_STACKS]


def _short(file: str) -> str:
    """Return a path relative to the project, or to the folder of installed packages."""
    _, packages, inside = file.rpartition("/site-packages/")
    return inside if packages else file.removeprefix(f"{switchyard_settings().base_dir}/")


# A child writes a heartbeat every second. Its handler in C writes the stacks in milliseconds, once for each silence.
SILENT_S, WRITES_S = 4.0, 0.05


class SilentChildren:
    """Children that answer nothing. The stacks of each are requested once, when its silence is noticed."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._dumps: dict[int, Dump] = {}

    def look(self, unanswered: Mapping[int, float]) -> list[SilentChild]:
        """Return those that have answered nothing for 4 s, with their messages, by pid and seconds of silence."""
        found = []
        for process in self._children.running:
            row, silent_s = self._children.rows[process.index], unanswered.get(process.pid, 0.0)
            if silent_s < SILENT_S or not row.read().ready:
                continue
            if process.pid not in self._dumps:
                self._dumps[process.pid] = Dump(self._children.pool.name, process.pid)
                send(process, signal.SIGUSR1)
                time.sleep(WRITES_S)
            runs = {
                ran.job_id: now_ms() - (time.monotonic_ns() - ran.start_ns) // 1_000_000
                for ran in row.running()
                if ran.limit_ns
            }
            stacks = [stack for stack in self._dumps[process.pid].read() if stack.runs_task]
            # A later dump, that an operator asked for, follows in the file.
            found.append(SilentChild(process.pid, process.index, int(silent_s * 1_000), runs, stacks[: len(runs)]))
        self._dumps = {child.pid: self._dumps[child.pid] for child in found}
        return found


FLUSH_S: Final = 10.0
KINDS: Final = ("counter", "histogram")
WAIT, RUN = "switchyard_message_wait_seconds", "switchyard_message_duration_seconds"
# Code of the sum, and of the first class, of each histogram.
HISTOGRAMS: Final = {WAIT: (facts.WAIT_MS, facts.WAITS), RUN: (facts.RUN_MS, facts.RUNS)}
# Code of each counter, and its factor: of actors alone, for the room that they take.
COUNTERS: Final = {
    "switchyard_message_processor_seconds": (facts.PROCESSOR_MS, 1_000),
    "switchyard_message_sql_seconds": (facts.SQL_MS, 1_000),
    "switchyard_message_log_bytes": (facts.LOG_BYTES, 1),
    "switchyard_memory_growth_bytes": (facts.GROWN_BYTES, 1),
}
CALLS: Final = {"answered": facts.SUCCEEDED, "failed": facts.RETRIED}
# Counts by subjects and code: lane and actor, or an actor, a dependency or an owner alone.
Totals = Mapping[tuple[tuple[str, ...], int], int]


class CountFlush:
    """Flush of a pool's counts, in a folder's metrics files, to the facts. ``member`` is the supervisor's name."""

    def __init__(self, folder: Path, *, pool: str, release: str, member: str, store: facts.FactStore) -> None:
        self._folder, self._member, self._store = folder, member, store
        self._own = [facts.YARD, f"p:{pool}", *([f"r:{release}"] if release else [])]
        self._counts: dict[Path, Totals] = {}  # of each file, when it was last read
        self._hosts = BoundedLabels(MOST_HOSTS)  # of all children, each of which counts other ones by name
        self._flushed: Totals = {}
        # A flush without an answer is repeated as it was: the server may have added it.
        self._pending: dict[str, facts.Counts] = {}
        self._number = time.time_ns() // 1_000_000
        self._next_s = time.monotonic() + FLUSH_S

    def work(self) -> None:
        """Flush when it is due."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + FLUSH_S
            self.flush()

    def flush(self) -> bool:
        """Add what was counted since the last flush to the facts; return whether all of it is there."""
        try:
            if self._pending and not self._add():
                return False
            totals = self.totals()
            grown = {key: count - self._flushed.get(key, 0) for key, count in totals.items()}
            self._flushed = totals
            self._pending = self._by_subject({key: count for key, count in grown.items() if count > 0})
            return not self._pending or self._add()
        except BrokerError as error:  # with the report it is logged, and the next flush repeats it
            logger.debug("facts are flushed later: %s", error.kind)
            return False

    def totals(self) -> Totals:
        """Return what all processes of the pool counted, ended ones included."""
        found: dict[Path, Totals] = {}
        total: Counter[tuple[tuple[str, ...], int]] = Counter()
        for kind in KINDS:
            for path in self._folder.glob(f"{kind}_*.db"):
                try:
                    found[path] = counts_in(path)
                except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, struct.error):
                    found[path] = self._counts.get(path, {})  # it is being made, or another program wrote it
                total.update(found[path])
        self._counts = found
        return total

    def _add(self) -> bool:
        if self._store.add(self._member, self._number, self._pending):
            self._number, self._pending = self._number + 1, {}
            return True
        return False

    def _by_subject(self, counts: Totals) -> dict[str, facts.Counts]:
        subjects: dict[str, dict[int, int]] = {}
        for (named, code), count in counts.items():
            if facts.is_host(named[0]):
                named = (" ".join(self._hosts.bounded(*named[0].split(" ", 1))),)
            for subject in (*named, *self._own) if len(named) > 1 else named:
                of_subject = subjects.setdefault(subject, {})
                of_subject[code] = of_subject.get(code, 0) + count
        return facts.with_fewer_owners(subjects)


def counts_in(path: Path) -> Totals:
    """Return the counts in one file of prometheus-client."""
    counts: Counter[tuple[tuple[str, ...], int]] = Counter()
    for name, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
        if (found := _key_of(name)) is not None:
            key, factor = found
            counts[key] += int(value * factor)
    return counts


@cache
def _key_of(name: str) -> tuple[tuple[tuple[str, ...], int], float] | None:
    """Return what a value of a file counts, and its factor; ``None`` for other metrics."""
    family, metric, labels, *_ = json.loads(name)
    where = facts.queue_subject(labels.get("queue", "")), facts.actor_subject(labels.get("actor", ""))
    if metric.endswith("_total"):
        outcome = labels.get("outcome", "")
        if family == "switchyard_messages" and (code := facts.OUTCOMES.get(outcome)) is not None:
            return (where, code), 1
        if family == "switchyard_dependency_calls":
            return ((facts.dependency_subject(labels["dependency"]),), CALLS[outcome]), 1
        if family == OWNER_ATTEMPTS:
            return ((facts.owner_subject(labels["owner"]),), facts.OUTCOMES[outcome]), 1
        if family == OWNER_SECONDS:
            return ((facts.owner_subject(labels["owner"]),), facts.RUN_MS), 1_000
        if family == "switchyard_dependency_host_calls":
            return ((f"{facts.dependency_subject(labels['dependency'])} {labels['host']}",), CALLS[outcome]), 1
        if family in COUNTERS:
            code, factor = COUNTERS[family]
            return (where[1:], code), factor
        return None
    if family not in HISTOGRAMS:
        return None
    total, first = HISTOGRAMS[family]
    if metric.endswith("_sum"):
        return (where, total), 1_000
    if metric.endswith("_bucket"):
        return (where, first + min(bisect_left(BUCKETS_S, float(labels["le"])), facts.CLASSES - 1)), 1
    return None
