"""``manage.py switchyard COMMAND …``: every command of the library under one name, which no host project has."""

from __future__ import annotations

import sys
from argparse import REMAINDER
from importlib import import_module
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from apps.platform.console.command_errors import WRONG_ARGUMENTS
from apps.platform.console.command_help import show_examples

MODULES = {
    "runpools": "apps.platform.workers.commands.runpools",
    "runpool": "apps.platform.workers.commands.runpool",
    "runscheduler": "apps.platform.schedules.commands.runscheduler",
    "runhistory": "apps.platform.history.commands.runhistory",
    "runweb": "apps.platform.serving.commands.runweb",
    "top": "apps.platform.top.commands.top",
    "doctor": "apps.platform.doctor.commands.doctor",
    "queues": "apps.platform.queues.commands.queues",
    "workers": "apps.platform.operations.commands.workers",
    "jobs": "apps.platform.jobs.commands.jobs",
    "actors": "apps.platform.actors.commands.actors",
    "deadletters": "apps.platform.dead_letters.commands.deadletters",
    "history": "apps.platform.history.commands.history",
    "bulk": "apps.platform.bulk.commands.bulk",
    "schedules": "apps.platform.schedules.commands.schedules",
    "alerts": "apps.platform.alerts.commands.alerts",
    "audit": "apps.platform.audit.commands.audit",
    "retention": "apps.platform.retention.commands.retention",
    "topology": "apps.platform.deployment.commands.topology",
    "broker": "apps.platform.operations.commands.broker",
    "check_backlog": "apps.platform.operations.commands.check_backlog",
    "tokens": "apps.platform.api.commands.tokens",
    "createtoken": "apps.platform.api.commands.createtoken",
}

EXAMPLES = """examples:
  manage.py switchyard runpools                all pools; Ctrl-C drains them
  manage.py switchyard doctor --json
  manage.py switchyard queues --help           the command's own arguments"""


def load(name: str) -> BaseCommand:
    """Return a command by its name."""
    command: BaseCommand = import_module(MODULES[name]).Command()
    return command


class Command(BaseCommand):
    """Dispatcher to one of the commands; options, output and exit code are that command's own."""

    help = "Background work: run pools and the scheduler, inspect queues, jobs and dead letters, diagnose defects."
    requires_system_checks = []  # each command declares the system checks that it needs

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand the command line over to the command that it names."""
        name = argv[2] if len(argv) > 2 else ""
        if name in MODULES:
            load(name).run_from_argv([argv[0], f"switchyard {name}", *argv[3:]])
        elif name == "":
            self.print_help(argv[0], argv[1])
            sys.exit(WRONG_ARGUMENTS)
        else:
            super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the command and its own arguments."""
        parser.add_argument("command", metavar="COMMAND", choices=MODULES, help="one of those below")
        parser.add_argument("arguments", metavar="…", nargs=REMAINDER, help="see manage.py switchyard COMMAND --help")
        commands = "\n".join(f"  {name:14} {load(name).help}" for name in MODULES)
        show_examples(parser, f"{EXAMPLES}\n\ncommands:\n{commands}")

    def handle(self, *args: Any, command: str, arguments: list[str], **options: Any) -> None:
        """Run the command when Python called it, with ``call_command("switchyard", "doctor", "--json")``."""
        call_command(load(command), *arguments, stdout=self.stdout, stderr=self.stderr)
