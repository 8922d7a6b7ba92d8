"""What the leading scheduler does beside its ticks, each in a thread of its own, so that none delays another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections

from apps.platform.schedules.log_throttle import LogThrottle


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do again and again.

    Args:
        every_s: Seconds between the end of one run and the beginning of the next.
    """

    name: str
    every_s: float
    run: Callable[[], Any]


def yard_chores() -> tuple[Chore, ...]:
    """Return the yard's chores.

    Send the alerts that are due, watch the broker's server, make the rows of dead letters agree with their lists,
    forget what was done once long ago.
    """
    from apps.platform.alerts.broker_alerts import BrokerAlerts
    from apps.platform.alerts.services import dispatch_due
    from apps.platform.dead_letters.reconcile import reconcile_all
    from apps.platform.jobs.once import forget_old

    return (
        Chore("alerts", 1.0, dispatch_due),
        Chore("broker's server", 5.0, BrokerAlerts().look),
        Chore("dead letters", 30.0, reconcile_all),
        Chore("done once", 60.0, forget_old),
    )


def start(chore: Chore, *, leading: Callable[[], bool], stop: threading.Event) -> threading.Thread:
    """Do a chore in a new thread while ``leading``, until ``stop``. What it raises is logged; it goes on."""
    thread = threading.Thread(target=_keep_doing, args=(chore, leading, stop), name=f"chore {chore.name}", daemon=True)
    thread.start()
    return thread


def _keep_doing(chore: Chore, leading: Callable[[], bool], stop: threading.Event) -> None:
    complaints = LogThrottle(chore.name)
    while not stop.wait(chore.every_s):
        if not leading():
            continue
        close_old_connections()
        try:
            chore.run()
        except Exception as error:  # noqa: BLE001  logged by complaints; a chore that fails once has to go on
            complaints.failed(error)
        else:
            complaints.fine()
        finally:
            close_old_connections()
