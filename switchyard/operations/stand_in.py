"""The alerts of a yard in which no scheduler leads: examined and sent by a process of one of its pools."""

import threading
from functools import partial

import django

from switchyard.long_running import run_until_signal


def run() -> int:
    """Do the leader's tasks that alerts need, until a signal; return 0."""
    from switchyard.alerts.sending import LOCK_S, AwayAlert, BrokerAlerts, Throttle, dispatch_due
    from switchyard.operations.alerting import FindingAlerts
    from switchyard.schedules.runner import MaintenanceTask, start

    tasks = (
        MaintenanceTask("alerts", 1.0, partial(dispatch_due, Throttle()), lock_s=LOCK_S),
        MaintenanceTask("broker's server", 5.0, BrokerAlerts().check),
        MaintenanceTask("broker away", 5.0, AwayAlert().check),
        MaintenanceTask("findings", 5.0, FindingAlerts().check),
    )

    def run_tasks(stop: threading.Event) -> None:
        for task in tasks:
            start(task, leading=lambda: True, stop=stop)
        stop.wait()

    run_until_signal(run_tasks, name="alerts", logger="switchyard.scheduler", stop_within_s=2.0)
    return 0


if __name__ == "__main__":
    django.setup()
    from switchyard.workers.preflight import log_to_standard_error
    from switchyard.workers.shared.fork import leave, run_or_crash

    log_to_standard_error()
    leave(run_or_crash(run))
