"""``manage.py measure_pools``: measure which kind of pool suits an actor."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from devtools.measuring.run import Figures, NotMeasured, choose, measure
from devtools.measuring.work import SAMPLES, Contender, Work, read_contender, read_work, slow_server, usual_contenders
from switchyard.console.commands import show_examples

COLUMNS = ("pool", "tasks/s", "p50 ms", "p95 ms", "memory MB", "CPU %", "failed")

EXAMPLES = """examples:
  manage.py measure_pools                                              the samples, in every kind
  manage.py measure_pools make_thumbnail '[7]' --tasks 50              an actor of the project; it really runs
  manage.py measure_pools http --pools threads:1x8 gevent:1x64         only these: kind:PROCESSESxSLOTS"""


class Command(BaseCommand):
    """Print a table for each actor: its figures in pools of several kinds and sizes."""

    help = "Run an actor in threads, processes and greenlets, on a temporary broker, and report which pool suits it."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        samples = ", ".join(SAMPLES)
        parser.add_argument("actor", nargs="?", help=f"an actor of the project, or a sample ({samples}); default these")
        parser.add_argument("arguments", nargs="?", default="", help="its arguments as JSON: a list, or an object")
        parser.add_argument("--pools", nargs="+", metavar="KIND:PxS", help="default: each kind in two or three sizes")
        parser.add_argument("--tasks", type=int, default=200, help="tasks for each pool, default 200")
        parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each pool, default 120")
        parser.add_argument("--json", action="store_true", help="print JSON at the end")

    def handle(self, **options: Any) -> None:
        if options["tasks"] < 1:
            raise CommandError(f"--tasks is {options['tasks']}; measure at least one", returncode=2)
        results: dict[str, Any] = {}
        with slow_server() as url:
            try:
                contenders = [read_contender(text) for text in options["pools"] or ()] or list(usual_contenders())
                actors = [options["actor"]] if options["actor"] else SAMPLES
                works = [read_work(actor, options["arguments"], url=url) for actor in actors]
            except ValueError as error:
                raise CommandError(str(error), returncode=2) from error
            for work in works:
                figures = self._measure(work, contenders, options)
                picked = choose(figures)
                results[work.actor.removeprefix("sample_")] = {
                    "pools": [asdict(one) for one in figures],
                    "picked": picked.pool if picked else None,
                }
                if picked is None:
                    self.stderr.write(f"{work.actor}: tasks failed in every pool, so no pool is picked")
                elif not options["json"]:
                    self.stdout.write(f"picked: {picked.pool}\n")
        if options["json"]:
            self.stdout.write(json.dumps(results, indent=2))
        if any(one["picked"] is None for one in results.values()):
            sys.exit(1)

    def _measure(self, work: Work, contenders: list[Contender], options: dict[str, Any]) -> list[Figures]:
        if not options["json"]:
            self.stdout.write(f"\n{work.actor}, {options['tasks']} tasks\n{_line(COLUMNS)}")
        figures = []
        for contender in contenders:
            try:
                one = measure(contender, work, tasks=options["tasks"], timeout_s=options["timeout"])
            except NotMeasured as error:
                self.stderr.write(str(error))
                continue
            figures.append(one)
            if not options["json"]:
                self.stdout.write(_line([str(value) for value in asdict(one).values()]))
                self.stdout.flush()
        if not figures:
            raise CommandError(f"actor {work.actor}: no pool could be measured", returncode=1)
        return figures


def _line(cells: Any) -> str:
    first, *others = cells
    return f"{first:<18}" + "".join(f"{cell:>11}" for cell in others)
