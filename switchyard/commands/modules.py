"""Modules of the commands, by the names under which they are called."""

from __future__ import annotations

MODULES = {
    "runpools": "switchyard.workers.commands.runpools",
    "runpool": "switchyard.workers.commands.runpool",
    "runscheduler": "switchyard.schedules.commands.runscheduler",
    "runhistory": "switchyard.history.commands.runhistory",
    "runweb": "switchyard.serving.commands.runweb",
    "status": "switchyard.operations.commands.status",
    "doctor": "switchyard.doctor.commands.doctor",
    "queues": "switchyard.queues.commands.queues",
    "workers": "switchyard.operations.commands.workers",
    "jobs": "switchyard.jobs.commands.jobs",
    "actors": "switchyard.actors.commands.actors",
    "deadletters": "switchyard.dead_letters.commands.deadletters",
    "history": "switchyard.history.commands.history",
    "bulk": "switchyard.bulk.commands.bulk",
    "schedules": "switchyard.schedules.commands.schedules",
    "alerts": "switchyard.alerts.commands.alerts",
    "audit": "switchyard.audit.commands.audit",
    "topology": "switchyard.deployment.commands.topology",
    "broker": "switchyard.operations.commands.broker",
    "check_backlog": "switchyard.operations.commands.check_backlog",
    "tokens": "switchyard.api.commands.tokens",
    "createtoken": "switchyard.api.commands.createtoken",
}
