"""Modules of the commands, by the names under which they are called."""

from __future__ import annotations

MODULES = {
    "run": "switchyard.commands.run",
    "runpools": "switchyard.commands.runpools",
    "runpool": "switchyard.commands.runpool",
    "runscheduler": "switchyard.commands.runscheduler",
    "runhistory": "switchyard.commands.runhistory",
    "runweb": "switchyard.commands.runweb",
    "status": "switchyard.commands.status",
    "diagnose": "switchyard.commands.diagnose",
    "doctor": "switchyard.commands.doctor",
    "queues": "switchyard.commands.queues",
    "workers": "switchyard.commands.workers",
    "jobs": "switchyard.commands.jobs",
    "actors": "switchyard.commands.list_actors",  # a module "actors" of an app declares actors
    "deadletters": "switchyard.commands.deadletters",
    "history": "switchyard.commands.history",
    "batches": "switchyard.commands.batches",
    "bulk": "switchyard.commands.bulk",
    "schedules": "switchyard.commands.schedules",
    "alerts": "switchyard.commands.alerts",
    "topology": "switchyard.commands.topology",
    "plan": "switchyard.commands.plan",
    "broker": "switchyard.commands.broker",
    "check_backlog": "switchyard.commands.check_backlog",
    "tokens": "switchyard.commands.tokens",
}
