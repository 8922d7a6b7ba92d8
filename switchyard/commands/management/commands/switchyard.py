"""``manage.py switchyard COMMAND …``: every command of the library under one name, which no host project has."""

import sys
from argparse import REMAINDER
from difflib import get_close_matches
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.utils.module_loading import import_string

from switchyard.commands import COMMANDS
from switchyard.console.commands import WRONG_ARGUMENTS, show_examples

EXAMPLES = """examples:
  manage.py switchyard runpools                all pools; Ctrl-C drains them
  manage.py switchyard doctor --json
  manage.py switchyard queues --help           the command's own arguments"""


def load(name: str) -> BaseCommand:
    command: BaseCommand = import_string(COMMANDS[name])()
    return command


class Command(BaseCommand):
    """Dispatcher to one of the commands; options, output and exit code are that command's own."""

    help = "Background work: run pools and the scheduler, inspect queues, jobs and dead letters, diagnose defects."
    requires_system_checks = []  # each command declares the system checks that it needs

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand the command line over to the command that it names."""
        name = argv[2] if len(argv) > 2 else ""
        if name in COMMANDS:
            load(name).run_from_argv([argv[0], f"switchyard {name}", *argv[3:]])
        elif name == "":
            self.print_help(argv[0], argv[1])
            sys.exit(WRONG_ARGUMENTS)
        elif near := get_close_matches(name, COMMANDS, n=1):
            sys.stderr.write(f"switchyard: there is no command {name!r}; did you mean {near[0]}?\n")
            sys.exit(WRONG_ARGUMENTS)
        else:
            super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
        parser.add_argument("arguments", metavar="…", nargs=REMAINDER, help="see manage.py switchyard COMMAND --help")
        commands = "\n".join(f"  {name:14} {load(name).help}" for name in COMMANDS)
        show_examples(parser, f"{EXAMPLES}\n\ncommands:\n{commands}")

    def handle(self, *args: Any, command: str, arguments: list[str], **options: Any) -> None:
        """Run the command when Python called it, with ``call_command("switchyard", "doctor", "--json")``."""
        call_command(load(command), *arguments, stdout=self.stdout, stderr=self.stderr)
