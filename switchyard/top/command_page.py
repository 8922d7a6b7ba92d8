"""Details of a row: the output of the command that shows it, so that terminal and commands cannot differ."""

from __future__ import annotations

import shlex
from io import StringIO

from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand

from switchyard.actors.commands.actors import Command as Actors
from switchyard.alerts.commands.alerts import Command as Alerts
from switchyard.dead_letters.commands.deadletters import Command as DeadLetters
from switchyard.jobs.commands.jobs import Command as Jobs
from switchyard.operations.commands.workers import Command as Workers
from switchyard.queues.commands.queues import Command as Queues
from switchyard.schedules.commands.schedules import Command as Schedules
from switchyard.top.text_page import TextPage, TextPlace, TextSection

COMMANDS: dict[str, type[BaseCommand]] = {
    "actors": Actors,
    "alerts": Alerts,
    "deadletters": DeadLetters,
    "jobs": Jobs,
    "queues": Queues,
    "schedules": Schedules,
    "workers": Workers,
}


def command_page(place: TextPlace) -> TextPage:
    """Run a command that only reads, and return its output."""
    name, *arguments = place.of
    out = StringIO()
    try:
        call_command(COMMANDS[name](), *arguments, stdout=out, stderr=out, no_color=True)
    except CommandError as error:
        out.write(f"{error}\n")
    lines = tuple(line.rstrip() for line in out.getvalue().splitlines())
    command = f"manage.py {shlex.join(place.of)}"
    return TextPage(command, (TextSection(lines=lines, empty="It printed nothing."),), command)
