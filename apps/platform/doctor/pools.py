"""Pools: each has a supervisor that reports, children that work, and a clock that is right."""

from __future__ import annotations

from collections.abc import Iterator

from apps.platform.conf import declared_yard
from apps.platform.console.formatting import duration
from apps.platform.doctor.finding import Finding
from apps.platform.doctor.snapshot import Snapshot
from broker.shapes import LaneStats
from broker.stores.pool_reports import ON_PURPOSE, PoolReport
from broker.topology import Pool

GROUP = "pools"
STARTING_S = 60
CLOCK_S = 5.0
MANY_CRASHES = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare what reports with what is declared."""
    for pool in declared_yard().pools:
        mine = [report for report in snapshot.reports if report.pool == pool.name]
        if not mine:
            yield _down(pool, snapshot)
        for report in mine:
            yield from _supervisor(pool, report, snapshot.now_ms)
    declared = {pool.name for pool in declared_yard().pools}
    for report in snapshot.reports:
        if report.pool not in declared:
            seen = f"a pool {report.pool} runs on {report.host} that this release does not declare"
            cause = "It was renamed or removed, and processes of the release before are left"
            step = f"kill -TERM {report.pid}, on {report.host}"
            yield Finding(GROUP, "undeclared", "warning", seen, cause, step, report.pool)


def _down(pool: Pool, snapshot: Snapshot) -> Finding:
    waiting = sum(_waiting(lane) for lane in _lanes(pool, snapshot))
    cause = "It was not started, was killed, stands still (kill -CONT), or cannot reach the broker; nothing is lost"
    step = f"manage.py runpool {pool.name}"
    if not waiting:
        seen = f"{pool.name} has no supervisor that reports; nothing waits for it"
        return Finding(GROUP, "down", "warning", seen, cause, step, pool.name)
    seen = f"{pool.name} has no supervisor that reports, and {waiting:,} messages wait for it"
    return Finding(GROUP, "down", "error", seen, cause, step, pool.name)


def _supervisor(pool: Pool, report: PoolReport, now_ms: int) -> Iterator[Finding]:
    name = f"{pool.name} on {report.host} (pid {report.pid})"
    ready = sum(bool(child.get("ready")) for child in report.children)
    up_s = (now_ms - report.started_at) / 1000
    if report.state == "paused":
        seen = f"{name} is paused: the broker's keyspace is not the one it knew"
        yield Finding(GROUP, "paused", "error", seen, "See the broker", "manage.py broker", pool.name)
    elif report.state == "starting" and up_s > STARTING_S:
        seen = f"{name} starts for {duration(up_s * 1000)}, {ready} of {pool.processes} children are ready"
        cause = "Its children end while they load the project, or memory is short"
        yield Finding(
            GROUP, "starting", "error", seen, cause, f"journalctl, or its log; manage.py runpool {pool.name}", pool.name
        )
    elif report.state == "up" and ready < pool.processes:
        seen = f"{name} has {ready} of {pool.processes} children"
        cause = "One ended and is being replaced, or ends again and again"
        yield Finding(
            GROUP, "children", "warning", seen, cause, "manage.py doctor again; if it stays, the pool's log", pool.name
        )
    else:
        yield Finding(
            GROUP, report.state, "ok", f"{name}: {report.busy} of {report.slots} slots busy", subject=pool.name
        )
    crashes = {reason: count for reason, count in report.restarts.items() if reason not in ON_PURPOSE}
    if sum(crashes.values()) >= MANY_CRASHES:
        counted = ", ".join(f"{count} × {reason}" for reason, count in sorted(crashes.items()))
        seen = f"{name} replaced children since it started {duration(up_s * 1000)} ago: {counted}"
        cause = "A task that crashes, leaks or does not end; it becomes a dead letter `poison` or `time_limit`"
        if "SIGKILL" in crashes:
            cause += ". SIGKILL: the kernel for want of memory (dmesg), or a person"
        yield Finding(GROUP, "restarts", "warning", seen, cause, "manage.py deadletters list", pool.name)
    ahead_s = (report.beat_at - now_ms) / 1000
    # A report is two seconds old at the most, five while the broker was away.
    if ahead_s > CLOCK_S or ahead_s < -CLOCK_S - 5:
        seen = (
            f"the clock of {report.host} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the broker's"
        )
        cause = "It does not follow a time server, or its supervisor stands still; ages and times it writes are wrong"
        yield Finding(GROUP, "clock_off", "warning", seen, cause, f"timedatectl, on {report.host}", pool.name)


def _lanes(pool: Pool, snapshot: Snapshot) -> Iterator[LaneStats]:
    served = declared_yard().served_by(pool)
    for queue in snapshot.queues.values():
        for lane in (queue.stats.live, queue.stats.retry):
            if lane.name in served:
                yield lane


def _waiting(lane: LaneStats) -> int:
    return lane.waiting + lane.running
