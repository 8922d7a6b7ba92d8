"""Maintenance tasks of the leading scheduler, each in a thread of its own so that none delays another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections

from apps.platform.schedules.log_throttle import LogThrottle


@dataclass(frozen=True, slots=True)
class MaintenanceTask:
    """A function that the leading scheduler calls periodically.

    Args:
        every_s: Seconds between the end of one call and the start of the next.
    """

    name: str
    every_s: float
    run: Callable[[], Any]


def maintenance_tasks() -> tuple[MaintenanceTask, ...]:
    """Return the yard's tasks: send alerts, check the broker's server, reconcile dead letters, delete old once-keys."""
    from apps.platform.alerts.broker_alerts import BrokerAlerts
    from apps.platform.alerts.services import dispatch_due
    from apps.platform.dead_letters.reconcile import reconcile_all
    from apps.platform.jobs.once import delete_old_keys

    return (
        MaintenanceTask("alerts", 1.0, dispatch_due),
        MaintenanceTask("broker's server", 5.0, BrokerAlerts().check),
        MaintenanceTask("dead letters", 30.0, reconcile_all),
        MaintenanceTask("done once", 60.0, delete_old_keys),
    )


def start(task: MaintenanceTask, *, leading: Callable[[], bool], stop: threading.Event) -> threading.Thread:
    """Start a thread that runs a task periodically while ``leading()`` is true, until ``stop`` is set.

    Logs whatever the task raises and calls it again after ``every_s``.
    """
    name = f"maintenance {task.name}"
    thread = threading.Thread(target=_run_periodically, args=(task, leading, stop), name=name, daemon=True)
    thread.start()
    return thread


def _run_periodically(task: MaintenanceTask, leading: Callable[[], bool], stop: threading.Event) -> None:
    throttle = LogThrottle(task.name)
    while not stop.wait(task.every_s):
        if not leading():
            continue
        close_old_connections()
        try:
            task.run()
        except Exception as error:  # noqa: BLE001  logged by the throttle; one failure must not end the task
            throttle.failed(error)
        else:
            throttle.succeeded()
        finally:
            close_old_connections()
