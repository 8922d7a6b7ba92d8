"""``manage.py switchyard topology``: the declared yard as a table, and the deployment files made from it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.command_help import ActionParser, show_examples
from switchyard.console.printing_command import PrintingCommand
from switchyard.deployment import rendered_files, yard_table
from switchyard.deployment.sizes import RENDERED_CORES

EXAMPLES = """examples:
  manage.py switchyard topology                             queues, pools and actors
  manage.py switchyard topology --json
  manage.py switchyard topology render compose              write the files below ops/
  manage.py switchyard topology render compose --check      exit 1 when they differ
  manage.py switchyard topology render compose --cores 8    for a machine with 8 processors"""


class Command(PrintingCommand):
    """Print the yard, or render its deployment files."""

    help = "Print the declared yard, or render its deployment files."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("--json", action="store_true", help="print the yard as JSON")
        actions = parser.add_subparsers(dest="action", metavar="render", parser_class=ActionParser)
        render = actions.add_parser("render", help="write the deployment files")
        render.add_argument("target", choices=rendered_files.TARGETS)
        render.add_argument(
            "--cores",
            type=int,
            default=RENDERED_CORES,
            metavar="N",
            help=f'what processes="cores" stands for on the machine, default {RENDERED_CORES}',
        )
        render.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")

    def handle(self, *, action: str | None, **options: Any) -> None:
        if action == "render":
            self._render(options["target"], options["cores"], check=options["check"])
        elif options["json"]:
            self.stdout.write(json.dumps(yard_table.as_dict(declared_yard()), indent=2))
        else:
            self.stdout.write(yard_table.as_text(declared_yard()))

    def _render(self, target: str, cores: int, *, check: bool) -> None:
        if cores < 1:
            raise CommandError(f"--cores: {cores} is below 1; give the number of the machine's processors")
        rendered = rendered_files.render(target, declared_yard(), cores)
        if not check:
            for path in rendered_files.write(switchyard_settings().base_dir, rendered) or ["nothing changed"]:
                self.stdout.write(path)
        elif lines := rendered_files.differences(switchyard_settings().base_dir, rendered):
            self.stdout.write("\n".join(lines))
            again = f" --cores {cores}" if cores != RENDERED_CORES else ""
            raise CommandError(f"files differ from the yard; run: manage.py switchyard topology render {target}{again}")
