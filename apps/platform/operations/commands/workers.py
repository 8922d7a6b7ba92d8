"""``manage.py workers``: the supervisors that report, what their children run, and the pools without one."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.platform.conf import declared_yard
from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.console.formatting import ago, duration, size
from apps.platform.jobs.running import RunningJob, running_jobs
from apps.platform.operations.queries import ReportedWorkers, reported_workers
from broker.clock import datetime_of
from broker.stores.pool_reports import PoolReport
from middleware.logs import printable

EXAMPLES = """examples:
  manage.py workers                    every supervisor, its children and what they run
  manage.py workers --pool default
  manage.py workers --json"""


class Command(BaseCommand):
    """List the workers. Exit 1: the broker does not answer, or the yard has no such pool."""

    help = "List the pools' supervisors, their children and what they run; name the pools without a worker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("--pool", default="", metavar="NAME", help="only this pool")
        parser.add_argument("--member", default="", metavar="NAME", help="only this supervisor: POOL:HOST:PID")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, pool: str, member: str, **options: Any) -> None:
        """Print the sentences of the page of workers, then each supervisor with what it runs."""
        names = [declared.name for declared in declared_yard().pools]
        if pool and pool not in names:
            raise CommandError(f"workers: the yard has no pool {pool}; it has {', '.join(names)}")
        with as_command_error("workers"):
            found, running = reported_workers(), running_jobs()
        shown = [
            report
            for report in found.reports
            if (not pool or report.pool == pool) and (not member or report.member == member)
        ]
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(found, shown, running), indent=2))
            return
        self.stdout.write(f"{found.title}.\n{found.lead.replace('`', '')}")
        for report in shown:
            jobs = [job for job in running if job.holder.member == report.member]
            self.stdout.write("\n" + "\n".join(map(printable, _lines(report, jobs))))
        if not shown and (pool or member):
            self.stdout.write(f"\n{pool or member}: no supervisor reports")


def _lines(report: PoolReport, jobs: list[RunningJob]) -> list[str]:
    memory = size(sum(int(child.get("rss_bytes", 0)) for child in report.children))
    restarts = ", ".join(f"{count} by {reason}" for reason, count in sorted(report.restarts.items())) or "none"
    release = f", release {report.release}" if report.release else ""
    lines = [
        f"{report.pool} on {report.host}, pid {report.pid}: {report.state}, {report.busy} of {report.slots} busy",
        f"  {report.kind}{release}, {memory}, started {ago(datetime_of(report.started_at))}, "
        f"heartbeat {ago(datetime_of(report.beat_at))}, children replaced: {restarts}",
    ]
    for child in report.children:
        state = "up" if child.get("ready") else "starting"
        lines.append(f"  child {child.get('pid')}: {state}, {child.get('busy')} busy, {child.get('done')} done")
    for job in jobs:
        ran = "unknown" if job.ran_ms is None else duration(job.ran_ms)
        lines.append(f"  runs {job.actor} of {job.queue} for {ran}: job {job.id}")
    return lines


def _as_json(found: ReportedWorkers, shown: list[PoolReport], running: list[RunningJob]) -> dict[str, Any]:
    return {
        "sentence": found.title,
        "missing": list(found.missing),
        "supervisors": [
            asdict(report)
            | {
                "member": report.member,
                "running": [
                    {"id": job.id, "actor": job.actor, "queue": job.queue, "ran_ms": job.ran_ms}
                    for job in running
                    if job.holder.member == report.member
                ],
            }
            for report in shown
        ],
    }
