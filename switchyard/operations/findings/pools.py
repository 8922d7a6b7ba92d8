"""Checks of the pools that report: ready children, few crashes, and a correct clock."""

from __future__ import annotations

from collections.abc import Iterator

from switchyard.broker.stores.pool_reports import ON_PURPOSE, PoolReport
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration
from switchyard.operations.findings.finding import LOOK_AT_WORKERS, Finding, FindingGroup
from switchyard.operations.findings.snapshot import Snapshot

GROUP = FindingGroup("pools")
STARTING_S = 60
CLOCK_S = 5.0
MANY_CRASHES = 3


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the reports with the declared pools."""
    for pool in declared_yard().pools:
        mine = [report for report in snapshot.reports if report.pool == pool.name]
        for report in mine:
            yield from _supervisor(pool, report, snapshot.now_ms)
    declared = {pool.name for pool in declared_yard().pools}
    for report in snapshot.reports:
        if report.pool not in declared:
            seen = f"pool {report.pool}, which this release does not declare, runs on {report.host}"
            cause = "It was renamed or removed, and processes of the previous release still run"
            step = f"kill -TERM {report.pid}, on {report.host}"
            yield GROUP.warning("undeclared", seen, cause, step, report.pool, LOOK_AT_WORKERS)


def _supervisor(pool: Pool, report: PoolReport, now_ms: int) -> Iterator[Finding]:
    name = f"{pool.name} on {report.host} (pid {report.pid})"
    ready = sum(bool(child.get("ready")) for child in report.children)
    # As many as it has there: ``processes="cores"`` may stand for another number on this machine.
    wanted = report.slots // pool.slots if pool.per_core else pool.children
    children = counted(wanted, "child", "children")
    up_s = (now_ms - report.started_at) / 1000
    if report.state == "paused":
        seen = f"{name} is paused: the broker's keyspace was replaced"
        yield GROUP.error(
            "paused", seen, "See the group broker", "manage.py switchyard broker", pool.name, LOOK_AT_WORKERS
        )
    elif report.state == "starting" and up_s > STARTING_S:
        are = "is" if wanted == 1 else "are"
        seen = f"{name} has been starting for {duration(up_s * 1000)}, {ready} of {children} {are} ready"
        cause = "Its children exit while they load the project, or memory is short"
        step = f"journalctl, or its log; manage.py switchyard runpool {pool.name}"
        yield GROUP.error("starting", seen, cause, step, pool.name, LOOK_AT_WORKERS)
    elif report.state == "up" and ready < wanted:
        seen = f"{name} has {ready} of {children}"
        cause = "A child exited and is being replaced, or exits repeatedly"
        step = "manage.py switchyard doctor again; if it stays, the pool's log"
        yield GROUP.warning("children", seen, cause, step, pool.name, LOOK_AT_WORKERS)
    else:
        yield GROUP.ok(f"{name}: {report.busy} of {counted(report.slots, 'slot')} busy", subject=pool.name)
    crashes = {reason: count for reason, count in report.restarts.items() if reason not in ON_PURPOSE}
    if sum(crashes.values()) >= MANY_CRASHES:
        by_reason = ", ".join(f"{count} × {reason}" for reason, count in sorted(crashes.items()))
        seen = f"{name} has replaced children since its start {duration(up_s * 1000)} ago: {by_reason}"
        cause = "A task crashes, leaks or does not end; its message becomes a dead letter `poison` or `time_limit`"
        if "SIGKILL" in crashes:
            cause += ". SIGKILL: the kernel, when memory ran out (dmesg), or a person"
        yield GROUP.warning(
            "restarts", seen, cause, "manage.py switchyard deadletters list", pool.name, LOOK_AT_WORKERS
        )
    # Without a comparison by the supervisor itself: a report is at most 2 s old, 5 s while the broker was unavailable.
    ahead_s = (report.beat_at - now_ms if report.clock_ahead_ms is None else report.clock_ahead_ms) / 1000
    if ahead_s > CLOCK_S or ahead_s < -CLOCK_S - 5:
        seen = (
            f"the clock of {report.host} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the broker's"
        )
        cause = "It is not synchronised, or its supervisor is stopped; what jobs there ask for the time is wrong"
        step = f"timedatectl, on {report.host}"
        yield GROUP.warning("clock_off", seen, cause, step, pool.name, LOOK_AT_WORKERS)
