"""Rows and jobs whose every text is a payload. Run as ``python -m tests.browser.hostile`` in a yard's environment.

Prints JSON: what was made, for the addresses of its pages.
"""

import json
import sys
from datetime import timedelta
from typing import Any

import django

from tests.browser.payloads import PAYLOADS


def main() -> None:
    """Make the rows, wait for the jobs, and print what there is."""
    django.setup()
    from devtools.room import actors
    from devtools.room.yard import until
    from switchyard.broker.clock import now_ms
    from switchyard.broker.interface import facilities
    from switchyard.broker.stores.pool_reports import PoolReport
    from switchyard.dead_letters.models import DeadLetter
    from switchyard.history.models import JobRow
    from switchyard.jobs.services import submit

    sent = {"failed": [], "succeeded": []}  # type: dict[str, list[str]]
    for number, text in enumerate(PAYLOADS):
        fails = number % 2 == 0
        job = submit(actors.repeat, owner=text[:150], kwargs={"text": text, "more": {text: [text]}, "fails": fails})
        sent["failed" if fails else "succeeded"].append(job)
    every = sent["failed"] + sent["succeeded"]
    for row in _rows():
        row.save()
    until(lambda: JobRow.objects.filter(job_id__in=every).count() == len(every), "the history of the payloads")
    until(lambda: DeadLetter.objects.filter(message_id__in=sent["failed"]).count() == len(sent["failed"]), "letters")
    letters = dict(DeadLetter.objects.filter(message_id__in=sent["failed"]).values_list("message_id", "pk"))
    now = now_ms()
    facilities().pools.write(
        PoolReport(
            pool="slow", host=PAYLOADS[20], pid=1, kind="processes", slots=2, busy=1, started_at=now, beat_at=now,
            state=PAYLOADS[0], children=[], restarts={PAYLOADS[1]: 1},
        )
    )  # fmt: skip
    found = {
        **sent, "letters": [letters[job] for job in sent["failed"]], "alert": _newest("switchyard_alerts.Alert"),
        "bulk": _newest("switchyard_bulk.BulkAct"), "customer": _newest("shop.Customer"), "unknown": _unknown_actor(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")


def _rows() -> list[Any]:
    """Return rows of alerts, silences, bulk acts and the audit log, for every payload."""
    from django.utils import timezone

    from apps.shop.models import Customer
    from switchyard.alerts.models import Alert, Silence
    from switchyard.audit.models import AuditEntry
    from switchyard.bulk.models import BulkAct

    now, rows = timezone.now(), []  # type: Any, list[Any]
    for number, text in enumerate(PAYLOADS):
        rows += [
            Alert(
                fingerprint=f"xss-{number}", kind="queue", title=text, severity="warning", sample=text, queue=text[:64],
                actor=text, link=text, count=1, first_at=now, last_at=now, acknowledged_by=text[:150],
            ),
            AuditEntry(
                act="queue.pause", target=text, who=text[:150], via="page", reason=text, detail={text: text},
                outcome="failed", error=text, count=1,
            ),
        ]  # fmt: skip
        if number % 10 == 0:
            rows += [
                Silence(
                    fingerprint=f"xss-{number}", until=now + timedelta(hours=1), reason=text, created_by=text[:150]
                ),
                BulkAct(
                    kind="letter.requeue", filter={"fingerprint": text[:64]}, state="failed", total=3, who=text[:150],
                    via="page", reason=text, error=text, skips={text: 1}, touched_at=now, ended_at=now,
                ),
                Customer(name=text[:100], email=f"x{number}@example.com", country="DE"),
            ]  # fmt: skip
    return rows


def _newest(model: str) -> int:
    from django.apps import apps

    return int(apps.get_model(model).objects.order_by("-pk")[0].pk)


def _unknown_actor() -> str:
    """Send a message of an actor that no code has, with a name that wants to be markup, to a paused queue."""
    import dramatiq
    from dramatiq.message import Message

    message: Message[Any] = Message(
        queue_name="images", actor_name=PAYLOADS[22], args=(PAYLOADS[0],), kwargs={"x": PAYLOADS[1]}, options={}
    )
    return str(dramatiq.get_broker().enqueue(message).message_id)


if __name__ == "__main__":
    main()
