"""``manage.py runscheduler``: send what is due by the clock, dispatch alerts, keep dead letters' rows in step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import structlog
from django.core.management.base import BaseCommand

from apps.platform.schedules.maintenance import yard_chores
from apps.platform.schedules.runner import Scheduler
from apps.platform.workers.preflight import refuse_if_wrong

EX_SOFTWARE = 70
STOP_WITHIN_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger("switchyard.scheduler")


class Command(BaseCommand):
    """Run the scheduler until SIGTERM or SIGINT. Several may run: one leads, the others stand by."""

    help = "Run the scheduler: periodic actors, alerts, and the dead letters' rows. Several may run; one leads."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal; exit 0, 70 when the scheduler broke down, or 78 when the yard is wrong."""
        refuse_if_wrong()
        # Blocked in every thread and waited for here: a handler could interrupt a thread that holds the event's lock.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        stop = threading.Event()
        broken: list[BaseException] = []
        loop = threading.Thread(target=_run, args=(stop, broken), name="scheduler", daemon=True)
        loop.start()
        received = signal.sigwait(STOP_SIGNALS)
        if broken:
            sys.exit(EX_SOFTWARE)
        log.info("stopping", signal=signal.Signals(received).name)
        stop.set()
        loop.join(STOP_WITHIN_S)


def _run(stop: threading.Event, broken: list[BaseException]) -> None:
    try:
        Scheduler(chores_done=yard_chores()).run(stop)
    except BaseException as error:
        log.exception("scheduler broke down")
        broken.append(error)
        os.kill(os.getpid(), signal.SIGTERM)
