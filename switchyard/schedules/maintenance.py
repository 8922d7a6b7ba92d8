"""Maintenance tasks of the leading scheduler, each in a thread of its own so that none delays another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dramatiq
from django.db import close_old_connections

from switchyard.broker.admin.purge import finish
from switchyard.broker.errors import BrokerRefused
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.job_records import sweep
from switchyard.conf import declared_yard
from switchyard.log_throttle import LogThrottle


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
    """Return the tasks: alerts, broker, letters, purges, records, old rows, bulk acts whose job is gone."""
    from switchyard.alerts.broker_alerts import BrokerAlerts
    from switchyard.alerts.services import dispatch_due
    from switchyard.audit import services as audit
    from switchyard.bulk import services as bulk
    from switchyard.jobs.once import delete_old_keys

    return (
        MaintenanceTask("alerts", 1.0, dispatch_due),
        MaintenanceTask("broker's server", 5.0, BrokerAlerts().check_and_resolve),
        MaintenanceTask("dead letters", 30.0, reconcile_letters),
        MaintenanceTask("purges", 1.0, finish_purges),
        MaintenanceTask("job records", 300.0, sweep_records),
        MaintenanceTask("done once", 60.0, delete_old_keys),
        MaintenanceTask("bulk acts", 30.0, bulk.resume_lost),
        MaintenanceTask("old bulk acts", 3_600.0, bulk.delete_old_rows),
        MaintenanceTask("audit log", 3_600.0, audit.delete_old_rows),
    )


def reconcile_letters() -> None:
    """Reconcile the rows of dead letters, then resolve the alerts of groups that are all triaged.

    Raises:
        BrokerUnavailable: the broker did not answer; nothing is resolved by rows that may be out of date.
    """
    from switchyard.alerts.resolution import resolve_triaged
    from switchyard.dead_letters.queries import open_fingerprints
    from switchyard.dead_letters.reconcile import reconcile_all

    reconcile_all()
    resolve_triaged(open_fingerprints)


def sweep_records() -> int:
    """Drop the live records of jobs whose message is gone; return their number."""
    return sweep(facilities(dramatiq.get_broker()).records)


def finish_purges() -> int:
    """Drop or put back what purges have set aside, in every queue; return the number of messages.

    Raises:
        BrokerUnavailable: the broker did not answer.
        BrokerRefused: it refused the purges of a queue; those of the others are done.
    """
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        return 0
    records = facilities(broker).records
    done, refused = 0, []
    for queue in declared_yard().queues:
        try:
            done += finish(broker.lane(queue.name)[0], records)
        except BrokerRefused as error:  # a key of a wrong type in one queue must not hold up the others
            refused.append(error)
    if refused:
        raise refused[0]
    return done


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
