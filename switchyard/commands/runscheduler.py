"""``manage.py switchyard runscheduler``: send due ticks, dispatch alerts, reconcile dead letters."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from switchyard.alerts.checks import check_apprise
from switchyard.console.commands import refuse
from switchyard.long_running import run_until_signal
from switchyard.operations.alerting import HEARTBEAT_S, FindingAlerts, beat
from switchyard.schedules.runner import MaintenanceTask, Scheduler, maintenance_tasks
from switchyard.workers.preflight import log_to_standard_error, refuse_if_wrong

STOP_WITHIN_S = 5.0


class Command(BaseCommand):
    """Run the scheduler until SIGTERM or SIGINT. Of several schedulers one leads, the others stand by."""

    help = "Run the scheduler: periodic actors, alerts, dead-letter rows. Several may run; one leads."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal; exit 0, 70 if the scheduler crashed, or 78 if the configuration is invalid."""
        log_to_standard_error()
        refuse_if_wrong()
        if wrong := check_apprise(None):  # loaded here, before it leads: nothing else sends alerts by it
            refuse(*(f"{message.msg}; {message.hint}" for message in wrong))
        run_until_signal(run_scheduler, name="scheduler", logger="switchyard.scheduler", stop_within_s=STOP_WITHIN_S)


def run_scheduler(stop: threading.Event) -> None:
    """Run a scheduler with all its maintenance tasks until ``stop`` is set."""
    findings = FindingAlerts()
    tasks = (
        *maintenance_tasks(),
        MaintenanceTask("findings", 5.0, findings.check),
        MaintenanceTask("heartbeat", HEARTBEAT_S, partial(beat, findings)),
    )
    Scheduler(maintenance_tasks=tasks).run(stop)
