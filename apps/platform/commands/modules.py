"""Modules of the commands, by the names under which they are called."""

from __future__ import annotations

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
