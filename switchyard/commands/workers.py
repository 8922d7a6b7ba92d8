"""``manage.py switchyard workers``: list the supervisors that report; stop one, or its intake."""

from argparse import SUPPRESS
from typing import Any

import msgspec
from django.core.management.base import CommandError, CommandParser

from switchyard.audit.services import Who
from switchyard.broker.clock import datetime_of
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import Instruction, PoolReport, Verb
from switchyard.conf import declared_yard
from switchyard.console.commands import ActionParser, PrintingCommand, as_command_error
from switchyard.console.formatting import ago, duration, size
from switchyard.jobs.presentation import job_json
from switchyard.jobs.queries import running_jobs
from switchyard.middleware.logs import printable
from switchyard.operations import supervisors
from switchyard.operations.supervisors import ReportedWorkers, reported_workers

EXAMPLES = """examples:
  manage.py switchyard workers                    every supervisor, its children and what they run
  manage.py switchyard workers --pool default
  manage.py switchyard workers --json
  manage.py switchyard workers quiet --pool default --reason "a deploy"   take no new work; what runs ends
  manage.py switchyard workers quiet --host web-1 --reason "a new kernel"
  manage.py switchyard workers resume --pool default
  manage.py switchyard workers stop --member default:web-1:4711 --reason "leaks"   drain and end, as at SIGTERM"""
ACTS = {
    "quiet": "take no new work; what runs ends",
    "resume": "take work again",
    "stop": "drain and end, as at SIGTERM",
}
DONE = {"quiet": "takes no new work", "resume": "takes work again", "stop": "stops"}
# A supervisor looks every 2 s, and one that could not reach the broker every 5 s.
PATIENCE_S = 10.0


class Command(PrintingCommand):
    """List and instruct the workers.

    Exit 1: the broker does not answer, the yard has no such pool, or a supervisor did not obey.
    """

    help = "List the pools' supervisors, their children and what they run; quiet or stop them."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--pool", default="", metavar="NAME", help="only this pool")
        parser.add_argument("--member", default="", metavar="NAME", help="only this supervisor: POOL:HOST:PID")
        parser.add_argument("--host", default="", metavar="NAME", help="only supervisors on this host")
        acts = parser.add_subparsers(dest="act", metavar="quiet|resume|stop", parser_class=ActionParser)
        for act, text in ACTS.items():
            turn = acts.add_parser(act, help=text)
            which = turn.add_mutually_exclusive_group(required=True)
            which.add_argument("--pool", default=SUPPRESS, metavar="NAME", help="every supervisor of this pool")
            which.add_argument("--member", default=SUPPRESS, metavar="NAME", help="this supervisor: POOL:HOST:PID")
            which.add_argument("--host", default=SUPPRESS, metavar="NAME", help="every supervisor on this host")
            turn.add_argument("--reason", default="", help="shown with it, and kept in the audit log")
            turn.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")

    def handle(self, *args: Any, pool: str, member: str, host: str, **options: Any) -> None:
        """Print the sentences of the page of workers, then each supervisor with what it runs."""
        names = [declared.name for declared in declared_yard().pools]
        if pool and pool not in names:
            raise CommandError(f"workers: the yard has no pool {pool}; it has {', '.join(names)}")
        with as_command_error("workers"):
            found, running = reported_workers(), running_jobs()
        wanted = {"pool": pool, "member": member, "host": host}
        shown = [one for one in found.reports if all(text in ("", getattr(one, name)) for name, text in wanted.items())]
        if options["act"]:
            self._instruct(options["act"], shown, member or pool or host, options["reason"])
            return
        lines = [f"{found.title}.\n{found.lead.replace('`', '')}"]
        for report in shown:
            jobs = [job for job in running if job.holder.member == report.member]
            lines += ["", *map(printable, _lines(report, jobs, found.instructions.get(report.member)))]
        if not shown and (named := pool or member or host):
            lines.append(f"\n{named}: no supervisor reports")
        self.answer(lines, _as_json(found, shown, running), indent=2)

    def _instruct(self, verb: Verb, chosen: list[PoolReport], named: str, reason: str) -> None:
        """Instruct supervisors, and wait until they have obeyed."""
        refused = {report.member: why for report in chosen if (why := supervisors.refusal(report, verb))}
        able = [one for one in chosen if one.member not in refused]
        with as_command_error("workers"):
            told = supervisors.instruct(verb, able, who=Who.of_command(), reason=reason)
            left = supervisors.wait_until_obeyed(verb, told, PATIENCE_S) if told else []
        done = [report.member for report in told if report not in left]
        late = [report.member for report in left]
        lines = [f"{name}: {DONE[verb]}" for name in done]
        lines += [f"{name}: left out, because {why}" for name, why in refused.items()]
        lines += [f"{name}: has not obeyed within {PATIENCE_S:g} s, and may for a minute; see its log" for name in late]
        facts = {"act": verb, "done": done, "refused": refused, "not_obeyed": late}
        self.answer(map(printable, lines), facts, indent=2)
        if not chosen:
            fact = f"workers: {named}: no supervisor reports"
            raise CommandError(f"{fact}; manage.py switchyard workers lists those that do")
        if left or not told:
            raise CommandError(f"workers: {len(done)} of {len(chosen)} supervisors obeyed {verb}")


def _lines(report: PoolReport, jobs: list[Job], quieted: Instruction | None) -> list[str]:
    memory = size(sum(int(child.get("rss_bytes", 0)) for child in report.children))
    restarts = ", ".join(f"{count} by {reason}" for reason, count in sorted(report.restarts.items())) or "none"
    release = f", release {report.release}" if report.release else ""
    settings = f", settings {report.settings}" if report.settings else ""
    lines = [
        f"{report.pool} on {report.host}, pid {report.pid}: {report.state}, {report.busy} of {report.slots} busy",
        f"  {report.kind}{release}{settings}, {memory}, started {ago(datetime_of(report.started_at))}, "
        f"heartbeat {ago(datetime_of(report.beat_at))}, children replaced: {restarts}",
    ]
    if quieted is not None:
        by, why = quieted.by or "an operator", f": {quieted.reason}" if quieted.reason else ""
        lines.append(f"  takes no new work, by {by} {ago(datetime_of(quieted.at))}{why}")
    for child in report.children:
        state = supervisors.child_state(report, child)
        lines.append(f"  child {child.get('pid')}: {state}, {child.get('busy')} busy, {child.get('done')} done")
    for job in jobs:
        ran = "unknown" if job.run_ms is None else duration(job.run_ms)
        lines.append(f"  runs {job.actor} of {job.queue} for {ran}: job {job.id}")
    return lines


def _as_json(found: ReportedWorkers, shown: list[PoolReport], running: list[Job]) -> dict[str, Any]:
    def of(report: PoolReport) -> dict[str, Any]:
        jobs = [job_json(job) for job in running if job.holder.member == report.member]
        return {**msgspec.to_builtins(report), "member": report.member, "running": jobs}

    return {"sentence": found.title, "missing": list(found.missing), "supervisors": list(map(of, shown))}
