"""Names under which people of other libraries look for a command, and the command that does it here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Final

from django.core.management import get_commands

from switchyard.commands.modules import MODULES

POOLS, SCHEDULER, SEND, REQUEUE = "runpools", "runscheduler", "actors send ACTOR", "deadletters requeue ID"
COMMANDS: Final = {
    **dict.fromkeys(("worker", "work", "run", "start", "runworker", "runworkers", "dramatiq"), POOLS),
    **dict.fromkeys(("celery", "rqworker", "db_worker", "qcluster", "run_huey", "djangoq", "procrastinate"), POOLS),
    **dict.fromkeys(("scheduler", "schedule", "beat", "cron", "rqscheduler", "runperiodiq"), SCHEDULER),
    **dict.fromkeys(("send", "enqueue", "delay"), SEND),
    **dict.fromkeys(("purge", "clear", "empty"), "queues purge QUEUE"),
    "pause": "queues pause QUEUE",
    "resume": "queues resume QUEUE",
    **dict.fromkeys(("retry", "requeue"), REQUEUE),
    **dict.fromkeys(("dead", "failed", "dlq"), "deadletters list"),
    **dict.fromkeys(("cancel", "revoke", "abort"), "jobs cancel ID"),
    **dict.fromkeys(("result", "results"), "jobs show ID"),
    **dict.fromkeys(("stats", "status", "monitor", "inspect", "dashboard", "flower", "rqstats", "qmonitor"), "top"),
    **dict.fromkeys(("health", "healthcheck", "diagnose"), "doctor"),
    "queue": "queues",
    "job": "jobs",
    "actor": "actors",
    "tasks": "actors list",
}


def right_command(name: str, known: Collection[str] = ()) -> str:
    """Return the command for a name that no command of the project has, without ``manage.py``; "" when there is none.

    Args:
        known: Names of all commands of the project.
    """
    found = "" if name in known else COMMANDS.get(name, name if name in MODULES else "")
    return found if not found or found.split()[0] in known else f"switchyard {found}"


def unknown_command(arguments: Sequence[str]) -> str:
    """Return what to write in place of a command line of ``manage.py`` whose command does not exist, else ""."""
    program, name = PurePath(arguments[0]).name, arguments[1]
    if name not in COMMANDS and name not in MODULES:
        return ""
    remedy = right_command(name, get_commands())
    return f"{program}: there is no command {name!r}; write {program} {remedy}" if remedy else ""
