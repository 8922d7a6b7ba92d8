"""Checks of the pools that report: ready children, few crashes, and a correct clock; stacks of children in words."""

import re
import shlex
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from switchyard.broker.clock import now_ms
from switchyard.broker.shapes import LaneStats
from switchyard.broker.stores.pool_reports import (
    REPORT_TTL_MS,
    ChildStacks,
    PoolReport,
    SilentChild,
    SilentSupervisor,
    Stack,
)
from switchyard.broker.topology import Pool
from switchyard.conf import STARTED_MS, declared_yard, switchyard_settings
from switchyard.console.formatting import counted, duration, jobs_text, rough_duration
from switchyard.operations.findings.facts import Snapshot, YardFacts
from switchyard.operations.findings.finding import LOOK_AT_WORKERS, Button, Finding, FindingGroup, Severity
from switchyard.operations.queries import PoolState
from switchyard.operations.rows import Row

# Our own machinery within the project; other files of the project are of a task, all others of packages.
MACHINERY = re.compile(r"^(switchyard/|middleware/|manage\.py)")
INTERPRETER = re.compile(r"^(?:/[^:]*)?/lib/python3\.\d+/(?=[^:]*:\d)")
# Where a thread waits, for what.
WAITS = (
    (re.compile(r" (wait|_wait_for_tstate_lock|sleep|select|poll|epoll|accept|get|acquire|join)$"), "waits"),
    (re.compile(r" (recv\w*|read\w*|send\w*|connect)$"), "talks to the network"),
)


def shown_stacks(children: Sequence[ChildStacks]) -> list[dict[str, Any]]:
    """Return children as a page shows them: the stacks that run a task, and the others."""
    return [
        {
            "pid": child.pid,
            "tasks": [_shown_stack(stack) for stack in child.stacks if stack.runs_task],
            "others": [_shown_stack(stack) for stack in child.stacks if not stack.runs_task],
        }
        for child in children
    ]


def _shown_stack(stack: Stack) -> dict[str, Any]:
    """Return a stack with what it does, and its frames, each with whether it is of a task."""
    # "Running" is what faulthandler says of the thread that writes the stacks: it was interrupted, and need not run.
    name = "thread that was interrupted to write this" if stack.of == "running thread" else stack.of
    innermost = stack.frames[0] if stack.frames else ""
    waits = next((word for pattern, word in WAITS if pattern.search(innermost)), "works")
    frames = [(INTERPRETER.sub("", frame), _is_own(frame)) for frame in stack.frames]
    return {"of": name, "does": "runs a task" if stack.runs_task else waits, "frames": frames}


def _is_own(frame: str) -> bool:
    """Return whether a frame is in a file of the project, and not of our own machinery."""
    file = frame.rpartition(":")[0]
    inside = not file.startswith("/") and not MACHINERY.match(file)
    return inside and (Path(switchyard_settings().base_dir) / file).is_file()


def own_frame(stacks: Sequence[Stack]) -> str:
    """Return the innermost own frame of the stacks that do not wait; "" where there is none, or more than one."""
    working = [stack.frames for stack in stacks if stack.frames and not WAITS[0][0].search(stack.frames[0])]
    found = {next(filter(_is_own, frames), "") for frames in working}
    return found.pop() if len(found) == 1 else ""


GROUP = FindingGroup("pools")
# A host that does not come back is no longer told after so long.
HOST_TOLD_MS = 15 * 60_000
# So many pools are told in one sentence, with the first by name.
MANY, NAMED = 3, 4
NONE = "nothing waits there yet"
LOST = (
    "It was not started, was killed, its code does not load, it is stopped (kill -CONT), or cannot reach the broker; "
    "nothing is lost"
)


def look_at_absence(facts: YardFacts) -> Iterator[Finding]:
    """Judge pools of which no supervisor reports, hosts that are gone, silent children; none while that is unknown."""
    if not facts.state.server.pools_known:
        return
    missing = [pool for pool in facts.state.pools.values() if not pool.up and pool.state != "starting"]
    returning = [pool for pool in missing if pool.silent] if facts.state.returned_s is not None else []
    if returning:
        have, since = "has" if len(returning) == 1 else "have", duration((facts.state.returned_s or 0) * 1_000)
        names = ", ".join(pool.pool.name for pool in returning)
        seen = f"the broker takes work again since {since}, and {names} {have} not reported since"
        then = "Pools report within 5 s of its return by themselves; nothing needs to be restarted."
        yield GROUP.warning("returning", seen, "", "manage.py switchyard doctor, again in 10 s", then=then)
        missing = [pool for pool in missing if pool not in returning]
    for pools in [missing] if len(missing) >= MANY else [[pool] for pool in missing]:
        yield _down(pools, facts)
    for pool in facts.state.pools.values():
        if pool.quieted:
            yield _quieted(pool, facts)
    if facts.state.returned_s is None:
        yield from _hosts_gone(facts)
    yield from _silent_children(facts)


def _down(missing: list[PoolState], facts: YardFacts) -> Finding:
    """Return the finding for one pool, or for many, that with most waiting jobs first: their host is gone, perhaps."""
    missing = sorted(missing, key=lambda pool: -_waits(pool, facts))
    names, waiting = [pool.pool.name for pool in missing], sum(_waits(pool, facts) for pool in missing)
    why, step = _why(names[0], max(missing[0].silent, key=lambda one: one.beat_at, default=None))
    if len(missing) == 1:
        what = f"{names[0]} starts nothing, because no pool serves it" if waiting else f"no pool serves {names[0]}"
        then = _then(step)
    else:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        what = f"no pool serves {', '.join(names[:NAMED])}{more}"
        why = f"of {names[0]}, {why}" if any(pool.silent for pool in missing) else "no supervisor of them reports"
        if len(missing) == len(facts.state.pools) and step == _start(names[0]):
            step = "manage.py switchyard runpools"
        then = f"{_then(step)} Each pool has a supervisor of its own: `{_start('POOL')}`."
    served = tuple(lane for pool in missing for lane in declared_yard().served_by(pool.pool))  # late because of them
    return GROUP.finding(
        "error" if waiting else "warning", "down", f"{what}: {why}; {jobs_text(waiting, NONE)}", LOST, step, names[0],
        then=then, button=LOOK_AT_WORKERS, factor=float(waiting), also=served,
    )  # fmt: skip


def _start(name: str) -> str:
    return f"manage.py switchyard runpool {name}"


def _quieted(pool: PoolState, facts: YardFacts) -> Finding:
    """Return who keeps a pool's supervisors from taking work, and what waits for them."""
    name = pool.pool.name
    waiting = sum(lane.waiting for lane in _lanes(pool, facts))
    last = max(pool.instructions, key=lambda one: one.at, default=None)
    who, why = "an operator", ""
    if last is not None:
        who = last.by or who
        why = f" {duration(max(now_ms() - last.at, 0))} ago{f' ({last.reason})' if last.reason else ''}"
    if pool.takes_work:
        takes, it = ("takes", "it") if pool.quieted == 1 else ("take", "them")
        some = f"{pool.quieted} of {pool.supervisors} supervisors of {name}"
        seen = f"{some} {takes} no new work: {who} quieted {it}{why}"
    else:
        what = "starts nothing" if waiting else "takes no new work"
        those = "its only supervisor" if pool.supervisors == 1 else f"all its {pool.supervisors} supervisors"
        seen = f"{name} {what}, because {who} quieted {those}{why}; {jobs_text(waiting, NONE)}"
    severity: Severity = "error" if waiting and not pool.takes_work else "warning"
    cause = "A person quieted it, and has not let it take work again or stopped it yet"
    step = f"manage.py switchyard workers resume --pool {name}"
    then = "Jobs that run go on. It fetches again within 2 s once it may; a restart undoes it as well."
    label, query = f"Let {counted(pool.quieted, 'supervisor')} of {name} take work again…", urlencode({"pool": name})
    button = Button(label, "switchyard-operations-instruct", "resume", f"?{query}")
    return GROUP.finding(severity, "quieted", seen, cause, step, name, then=then, button=button, factor=float(waiting))


def _then(step: str) -> str:
    if not step.startswith(("manage.py", "kill")):
        return f"{step}. Nothing is lost."
    ends = ", unless it ends at once: what it prints says why" if "runpool" in step else ""
    return f"Run `{step}`: what waits starts at once{ends}. Nothing is lost."


def _why(name: str, last: SilentSupervisor | None) -> tuple[str, str]:
    """Return what is known of a pool's absence, and the step that helps."""
    start = _start(name)
    if last is None:
        return "no supervisor of it reports", start
    since = duration(max(now_ms() - last.beat_at, 0))
    if last.host != socket.gethostname():
        step = f"On {last.host}: `kill -CONT {last.pid}` if `ps -o stat= -p {last.pid}` begins with T, else `{start}`"
        return f"its supervisor (pid {last.pid} on {last.host}) has not reported for {since}", step
    import psutil  # a web process whose pools are there goes without

    try:
        status = psutil.Process(last.pid).status()
    except psutil.Error:
        status = psutil.STATUS_ZOMBIE
    it = f"its supervisor (pid {last.pid})"
    if status == psutil.STATUS_ZOMBIE:  # ended, and its parent has not asked how
        return f"{it} ended, its last report is {since} old, and none has reported since", start
    if status == psutil.STATUS_STOPPED:
        return f"{it} has been stopped for {since}", f"kill -CONT {last.pid}"
    step = f"Read the log of {name}: it cannot reach the broker, or hangs"
    return f"{it} runs and has not reported for {since}", step


def _hosts_gone(facts: YardFacts) -> Iterator[Finding]:
    """Yield a finding for each host whose supervisors have all fallen silent while others serve their pools."""
    by_host: dict[str, list[SilentSupervisor]] = defaultdict(list)
    for pool in facts.state.pools.values():
        for one in pool.silent:
            by_host[one.host].append(one)
    now = now_ms()
    for host, lost in by_host.items():
        last = max(one.beat_at for one in lost)
        fresh = [one for one in lost if last - one.beat_at < REPORT_TTL_MS]
        named = sorted({one.pool for one in fresh if facts.state.pools[one.pool].up})
        if host in facts.state.hosts or not named or now - last > HOST_TOLD_MS:
            continue
        since, run = duration(now - last), "runs" if len(named) == 1 else "run"
        seen = f"the host {host} reports no more since {since}: {', '.join(named)} {run} on other hosts only"
        cause = "The machine or container ended, or the network to it is cut"
        step = f"ping {host}; then start its pools"
        again = "Jobs that ran there start again elsewhere when their leases expire; nothing is lost."
        then, factor = f"{again} See whether the machine runs.", float(len(fresh))
        yield GROUP.warning("host_gone", seen, cause, step, host, then=then, button=LOOK_AT_WORKERS, factor=factor)


HOLDS_UP = "A call holds up every thread of the process, such as a regular expression or a loop in C; or it is stopped"
NAMED_ACTORS = 2
# Pool -> pid of a child that was silent, as far as this process has looked -> when it last was, a job, what it ran.
SILENT: defaultdict[str, dict[int, tuple[int, str, str]]] = defaultdict(dict)
AGAIN_MS, TOLD_MS = 180_000, 60_000


def _silent_children(facts: YardFacts) -> Iterator[Finding]:
    """Yield the children that answer nothing, one for each pool: an error where a queue is late by it, or all waits."""
    for pool in facts.state.pools.values():
        name, silent = pool.pool.name, pool.silent_children
        SILENT[name] = {pid: each for pid, each in SILENT[name].items() if now_ms() - each[0] < AGAIN_MS}
        if not silent:
            at, job, ran = max(SILENT[name].values(), default=(0, "", ""))
            if len(SILENT[name]) > 1 and now_ms() - at < TOLD_MS:  # one after the other: its job is retried
                again = f"{len(SILENT[name])} children of {name} have answered nothing, one after the other"
                then = f"Its job is tried again, and holds up the next child. {HOLDS_UP}."
                step, seen = f"manage.py switchyard jobs cancel {shlex.quote(job)}", f"{again}; the last ran {ran}"
                yield GROUP.warning("child_silent", seen, HOLDS_UP, step, name, then=then, button=LOOK_AT_WORKERS)
            continue
        report, child = silent[0]
        SILENT[name][child.pid] = now_ms(), next(iter(child.runs), ""), _runs_text(child, facts)
        late = [row.queue for row in facts.queue_rows if row.state.word == "Late" and pool in _holding_up(row, facts)]
        stands = len(silent) * pool.pool.slots >= pool.slots and any(lane.waiting for lane in _lanes(pool, facts))
        more = f"; {counted(len(silent) - 1, 'other child', 'other children')} of it, too" if silent[1:] else ""
        seen = f"{_silent_text(report, child, facts)}{more}"
        step = f"kill -USR1 {child.pid}, on {report.host}; then read stacks/{name}-{child.pid}.txt in its state folder"
        killed = f"within 10 s of `manage.py switchyard jobs cancel {next(iter(child.runs))}`"
        then = f"Show stacks, on the page of workers, names its line. {HOLDS_UP} (kill -CONT)."
        then += f" It is killed at the hard limit of its job, or {killed}."
        button = Button(f"Show child {child.pid} of {name}", "switchyard-operations-workers", query=f"#{report.member}")
        yield GROUP.finding(
            "error" if late or stands else "warning", "child_silent", seen, HOLDS_UP, step, [*late, name][0],
            then=then, button=button, factor=float(child.silent_ms),
        )  # fmt: skip


def silent_cause(row: Row, facts: YardFacts) -> str:
    """Return which child keeps a queue from starting its jobs, as it answers nothing; "" where none does."""
    silent = [pair for pool in _holding_up(row, facts) for pair in pool.silent_children]
    return _silent_text(*silent[0], facts) if silent else ""


def _holding_up(row: Row, facts: YardFacts) -> list[PoolState]:
    """Return the pools of a queue with silent children; none where these have less than half of its slots."""
    pools = [facts.state.pools[pool.name] for pool in declared_yard().pools_of(row.queue)]
    slots = sum(len(pool.silent_children) * pool.pool.slots for pool in pools)
    return [pool for pool in pools if pool.silent_children and slots * 2 >= row.slots]


def _silent_text(report: PoolReport, child: SilentChild, facts: YardFacts) -> str:
    silent = rough_duration(child.silent_ms, up=False)
    return f"child {child.pid} of {report.pool} has answered nothing for {silent}; it runs {_runs_text(child, facts)}"


def _runs_text(child: SilentChild, facts: YardFacts) -> str:
    actors = Counter(job.actor for job in facts.running or () if job.id in child.runs)
    first = actors.most_common(NAMED_ACTORS)
    names = [actor if count == 1 else f"{count:,} × {actor}" for actor, count in first]
    if others := len(child.runs) - sum(count for _, count in first):
        names.append(f"{others:,} × others" if names else counted(others, "job"))
    place, _, function = own_frame(child.stacks).rpartition(" ")
    return f"{', '.join(names)}{f', in {function}, {place}' if place else ''}"


def _waits(pool: PoolState, facts: YardFacts) -> int:
    return sum(lane.waiting + lane.running for lane in _lanes(pool, facts))


def _lanes(pool: PoolState, facts: YardFacts) -> list[LaneStats]:
    served = declared_yard().served_by(pool.pool)
    return [lane for stats in facts.state.queues for lane in (stats.live, stats.retry) if lane.name in served]


STARTING_S, CLOCK_S, MANY_CRASHES = 60, 5.0, 3
# Children crash one after the other where the last three did within so long, and the last just now.
CRASHING_MS, JUST_NOW_MS = 30_000, 15_000
BESIDE_MS = 10 * 60_000


class MemoryReplacements:
    """Children that were replaced for their memory within the last 10 minutes, as far as this process has looked."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  # of each supervisor, since it started
        self._seen: list[tuple[int, str]] = []

    def note(self, reports: Sequence[PoolReport], now_ms: int) -> None:
        """Note what the reports count more than those before; of a supervisor that began since then, all."""
        since, counts = now_ms - REPLACED_MS, dict[str, int]()
        self._seen = [(at, pool) for at, pool in self._seen if at > since]
        for report in reports:
            count = counts[report.member] = sum(report.restarts.get(reason, 0) for reason in BY_MEMORY)
            before = self._counts.get(report.member, 0 if report.started_at > since else count)
            self._seen += [(now_ms, report.pool)] * (count - before)
        self._counts = counts

    def queues(self) -> set[str]:
        """Return the queues of the pools that replaced two or more."""
        yard, pools = declared_yard(), Counter(pool for _, pool in self._seen)
        return {queue.name for queue in yard.queues if any(pools[pool.name] > 1 for pool in yard.pools_of(queue.name))}


REPLACED_MS, BY_MEMORY = 10 * 60_000, ("recycled_memory", "memory")
REPLACED = MemoryReplacements()


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the reports with the declared pools."""
    REPLACED.note(snapshot.reports, snapshot.now_ms)
    for pool in declared_yard().pools:
        mine = [report for report in snapshot.reports if report.pool == pool.name]
        for report in mine:
            yield from _supervisor(pool, report, snapshot.now_ms)
        yield from _differing(pool.name, mine, snapshot.now_ms)
    for report in undeclared(snapshot.reports):
        seen = f"pool {report.pool}, which this release does not declare, runs on {report.host}"
        cause = "It was renamed or removed, and processes of the previous release still run"
        step = f"kill -TERM {report.pid}, on {report.host}"
        if is_newer(report, snapshot.reports):
            cause = f"This process, on {socket.gethostname()}, is of an older release than the pool"
            step = "Deploy the new release to web, scheduler and this host, too; the pool is right"
        elif not _of_own_release(snapshot.reports):
            step += ", if its release is the older one"
        yield GROUP.warning("undeclared", seen, cause, step, report.pool, button=LOOK_AT_WORKERS)


def undeclared(reports: Sequence[PoolReport]) -> list[PoolReport]:
    """Return the reports of pools that this release does not declare."""
    return [report for report in reports if report.pool not in {pool.name for pool in declared_yard().pools}]


def is_newer(report: PoolReport, reports: Sequence[PoolReport]) -> bool:
    """Return whether a supervisor is of a release that was deployed after that of this process.

    It is of another one, and began after this process, or after the last supervisor of the same release as this.
    """
    own = switchyard_settings().release
    if own and report.release == own:
        return False
    since = max((each.started_at for each in _of_own_release(reports)), default=STARTED_MS)
    return report.started_at > min(since, STARTED_MS)


def _of_own_release(reports: Sequence[PoolReport]) -> list[PoolReport]:
    own = switchyard_settings().release
    return [report for report in reports if own and report.release == own]


def _differing(name: str, reports: list[PoolReport], now_ms: int) -> Iterator[Finding]:
    """Tell releases, or else settings, that run beside one another on a pool for longer than a deploy takes."""
    newest_first = sorted(reports, key=lambda one: -one.started_at)
    releases = {report.release: report for report in newest_first if report.release}
    settings = {report.settings: report for report in newest_first if report.settings}
    code, found = ("releases", releases) if len(releases) > 1 else ("settings", settings)
    beside_ms = now_ms - max((report.started_at for report in found.values()), default=now_ms)
    if len(found) < 2 or beside_ms < BESIDE_MS:
        return
    named = ", ".join(f"{which} on {report.host}" for which, report in sorted(found.items()))
    seen = f"{name} runs {len(found)} {code} beside one another for {duration(beside_ms)}: {named}"
    cause = "A deploy stopped half-way, or a host was left out; a job runs by the code of whichever fetches it"
    step = "Deploy the rest, or manage.py switchyard workers stop --member NAME of those that are left"
    if code == "settings":
        cause = "The topology, a setting or a database's address differs between hosts, or changed without a restart"
        step = "Compare the environments of these hosts; restart the pool where it is wrong"
    yield GROUP.warning(code, seen, cause, step, name, button=LOOK_AT_WORKERS)


def _supervisor(pool: Pool, report: PoolReport, now_ms: int) -> Iterator[Finding]:
    name = f"{pool.name} on {report.host} (pid {report.pid})"
    ready = sum(bool(child.get("ready")) for child in report.children)
    # As many as it has there: ``processes="cores"`` may stand for another number on this machine.
    wanted = report.slots // pool.slots if pool.per_core else pool.children
    children = counted(wanted, "child", "children")
    up_s = (now_ms - report.started_at) / 1000
    if report.state == "paused":
        seen, step = f"{name} is paused: the broker's keyspace was replaced", "manage.py switchyard broker"
        yield GROUP.error("paused", seen, "See the group broker", step, pool.name, button=LOOK_AT_WORKERS)
    elif report.state == "starting" and up_s > STARTING_S:
        are = "is" if wanted == 1 else "are"
        seen = f"{name} has been starting for {duration(up_s * 1000)}, {ready} of {children} {are} ready"
        cause = "Its children exit while they load the project, or memory is short"
        step = f"journalctl, or its log; manage.py switchyard runpool {pool.name}"
        yield GROUP.error("starting", seen, cause, step, pool.name, button=LOOK_AT_WORKERS)
    elif report.state == "up" and ready < wanted:
        seen = f"{name} has {ready} of {children}"
        cause = "A child exited and is being replaced, or exits repeatedly"
        step = "manage.py switchyard doctor again; if it stays, the pool's log"
        yield GROUP.warning("children", seen, cause, step, pool.name, button=LOOK_AT_WORKERS)
    else:
        yield GROUP.ok(f"{name}: {report.busy} of {counted(report.slots, 'slot')} busy", subject=pool.name)
    crashes = report.crashes
    if sum(crashes.values()) >= MANY_CRASHES:
        by_reason = ", ".join(f"{count} × {reason}" for reason, count in sorted(crashes.items()))
        seen = f"{name} has replaced children within the last hour: {by_reason}"
        cause = "A task crashes, leaks or does not end; its message becomes a dead letter `poison` or `time_limit`"
        if "SIGKILL" in crashes:
            cause += ". SIGKILL: the kernel, when memory ran out (dmesg), or a person"
        step = f"dmesg, on {report.host}" if "SIGKILL" in crashes else "manage.py switchyard deadletters list"
        code, (first, *_, last) = "restarts", report.crashed if len(report.crashed) > 1 else (0, 0)
        if last - first < CRASHING_MS and now_ms - last < JUST_NOW_MS:
            code, lately = "crashing", f"3 within {duration(last - first)}, the last {duration(now_ms - last)} ago"
            seen = f"{name} has lost one child after the other: {lately}; within the last hour: {by_reason}"
        yield GROUP.warning(code, seen, cause, step, pool.name, button=LOOK_AT_WORKERS)
    # Not judged before the supervisor itself has compared it: the report of one that was killed grows old as well.
    ahead_s = (report.clock_ahead_ms or 0) / 1000
    if abs(ahead_s) > CLOCK_S:
        off = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'}"
        seen = f"the clock of {report.host} is {off} the broker's"
        cause = "It is not synchronised, or its supervisor is stopped; what jobs there ask for the time is wrong"
        step = f"timedatectl, on {report.host}"
        yield GROUP.warning("clock_off", seen, cause, step, pool.name, button=LOOK_AT_WORKERS)
