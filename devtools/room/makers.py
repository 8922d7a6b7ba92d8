"""Things that a test asks for while the yard runs: a job that runs, letters, alerts."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from devtools.room import actors, jobs
from devtools.room.yard import until
from switchyard.alerts.models import Alert
from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.services import submit
from switchyard.queues import services as queues

SLOTS = 8
WAITING = 60
_numbers = itertools.count(1)
_running: list[str] = []


def running() -> str:
    """Return the id of a job that runs: the one made before, while it does. The pool has few slots."""
    if not _running or jobs.job_state(_running[-1]) != "running":
        _running.extend(jobs.send_running(1))
        jobs.wait_for({"running": _running[-1]})
    return _running[-1]


def scheduled() -> str:
    """Send a job for in an hour; return its id."""
    return submit(actors.thank, owner="user:2", delay_ms=actors.HOUR_MS, kwargs={"customer": "customer-later"})


def letters(count: int) -> dict[str, Any]:
    """Make dead letters of a bug of their own; return their actor, customer, fingerprint, keys and jobs."""
    customer = f"customer-{next(_numbers)}"
    sent = [
        submit(actors.price_basket, owner="user:1", kwargs={"customer": customer, "basket": number, "country": "NO"})
        for number in range(count)
    ]
    until(lambda: DeadLetter.objects.filter(message_id__in=sent).count() == count, "rows of dead letters")
    rows = DeadLetter.objects.filter(message_id__in=sent).order_by("pk")
    fingerprint = f"{next(_numbers):016x}"
    rows.update(fingerprint=fingerprint)
    return {
        "actor": "price_basket",
        "customer": customer,
        "fingerprint": fingerprint,
        "letters": [row.pk for row in rows],
        "jobs": [row.message_id for row in rows],
    }


def alert(title: str) -> int:
    """Make an open alert, and return its key."""
    now = timezone.now()
    made = Alert.objects.create(
        fingerprint=f"made-{next(_numbers)}", kind="queue", title=title, severity=Alert.Severity.WARNING,
        sample="made for a test", count=1, first_at=now - timedelta(minutes=3), last_at=now,
    )  # fmt: skip
    return made.pk


def alert_state(pk: int) -> str:
    return str(Alert.objects.get(pk=pk).state)


def acts(name: str) -> list[list[Any]]:
    """Return target, outcome, count and reason of each act of a name in the audit log, newest first."""
    rows = AuditEntry.objects.filter(act=name).values_list("target", "outcome", "count", "reason")
    return [list(row) for row in rows]


def make_default_late() -> None:
    """Fill every slot of the queue ``default`` with jobs of one actor, and have others wait behind them."""
    queues.resume(jobs.PAUSED, who=jobs.OPERATOR, reason="the picture host is there again")
    actors.hold_file().touch()
    for number in range(SLOTS):
        submit(actors.import_prices, owner="user:1", kwargs={"supplier": f"supplier-{number}", "at": now_ms()})
    for number in range(WAITING):
        submit(actors.thank, owner="user:2", kwargs={"customer": f"customer-{number}"})


MAKERS: dict[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (running, scheduled, letters, alert, alert_state, acts, jobs.job_state, make_default_late)
}
