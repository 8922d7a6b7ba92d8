"""``manage.py runscheduler``: send due ticks, dispatch alerts, reconcile dead letters."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import structlog
from django.core.management.base import BaseCommand

from apps.platform.schedules.maintenance import maintenance_tasks
from apps.platform.schedules.runner import Scheduler
from apps.platform.workers.preflight import log_to_standard_error, refuse_if_wrong

EX_SOFTWARE = 70
STOP_WITHIN_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger("switchyard.scheduler")


class Command(BaseCommand):
    """Run the scheduler until SIGTERM or SIGINT. Of several schedulers one leads, the others stand by."""

    help = "Run the scheduler: periodic actors, alerts, dead-letter rows. Several may run; one leads."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal; exit 0, 70 if the scheduler crashed, or 78 if the configuration is invalid."""
        log_to_standard_error()
        refuse_if_wrong()
        # Blocked and awaited, not handled: a handler could interrupt a thread that holds the event's lock.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        stop = threading.Event()
        crash: list[BaseException] = []
        loop = threading.Thread(target=_run, args=(stop, crash), name="scheduler", daemon=True)
        loop.start()
        received = signal.sigwait(STOP_SIGNALS)
        if crash:
            sys.exit(EX_SOFTWARE)
        log.info("stopping", signal=signal.Signals(received).name)
        stop.set()
        loop.join(STOP_WITHIN_S)


def _run(stop: threading.Event, crash: list[BaseException]) -> None:
    try:
        Scheduler(maintenance_tasks=maintenance_tasks()).run(stop)
    except BaseException as error:
        log.exception("scheduler crashed")
        crash.append(error)
        os.kill(os.getpid(), signal.SIGTERM)
