"""The pictures: a name, an address, and what the page must show before it is taken."""

from __future__ import annotations

from dataclasses import dataclass

LATE, FIRST_DAY, BROKER_AWAY = "late", "first day", "broker away"
BOTH, ALL_WAYS = ("light", "dark"), ("light", "dark", "phone")


@dataclass(frozen=True, slots=True)
class Shot:
    """One page.

    Args:
        name: Of its files: ``<name>-light.png``, ``<name>-dark.png``, ``<name>-phone.png``.
        path: With names of the situation in braces.
        heading: A pattern of the heading that it must show first; "" for any.
        ways: Those of ``docs/screenshots/``: light, dark, phone.
        situation: The yard it is taken in.
        text: A text that it must show, by a live update if not at first.
    """

    name: str
    path: str
    heading: str = ""
    ways: tuple[str, ...] = ()
    situation: str = LATE
    text: str = ""


QUEUE = "/admin/operations/queues/default/"
JOB, LETTER = "/admin/switchyard_jobs/job/", "/admin/switchyard_dead_letters/deadletter/"
ALERT = "/admin/switchyard_alerts/alert/"
SHOTS = (
    Shot("overview", "/admin/operations/", "^default is .* behind", ALL_WAYS, text="Blocked"),
    Shot("overview-table", "/admin/operations/?yard=table"),
    Shot("queue", QUEUE, ways=BOTH),
    Shot("queues", "/admin/operations/queues/"),
    Shot("pause", f"{QUEUE}pause/"),
    Shot("purge", f"{QUEUE}purge/"),
    Shot("move", f"{QUEUE}relocate/?actor=thank"),
    Shot("workers", "/admin/operations/workers/", ways=("light",)),
    Shot("jobs", JOB, ways=BOTH),
    Shot("job", f"{JOB}{{job}}/", ways=BOTH),
    Shot("actors", "/admin/operations/actors/"),
    Shot("actor", "/admin/operations/actors/price_basket/", ways=("light",)),
    Shot("dead-letters", LETTER, ways=ALL_WAYS),
    Shot("dead-letter-group", f"{LETTER}?fingerprint={{fingerprint}}", ways=ALL_WAYS),
    Shot("dead-letter", f"{LETTER}{{letter}}/change/", ways=("light",)),
    Shot("requeue", f"{LETTER}group/{{fingerprint}}/requeue/"),
    Shot("discard", f"{LETTER}group/{{fingerprint}}/discard/", ways=("light",)),
    Shot("quarantine", f"{LETTER}quarantine/"),
    Shot("schedules", "/admin/operations/schedules/", ways=("light",)),
    Shot("alerts", ALERT, ways=ALL_WAYS),
    Shot("alert", f"{ALERT}1/change/"),
    Shot("silence", f"{ALERT}silences/new/"),
    Shot("bulk-acts", "/admin/operations/bulk/"),
    Shot("audit-log", "/admin/operations/audit/"),
    Shot("retention", "/admin/operations/retention/"),
    Shot("find", "/admin/operations/find/?q=price"),
    Shot("first-day", "/admin/operations/", "^The yard is up", BOTH, FIRST_DAY),
    Shot("first-day-jobs", JOB, situation=FIRST_DAY),
    Shot("first-day-letters", LETTER, situation=FIRST_DAY),
    Shot("first-day-alerts", ALERT, situation=FIRST_DAY),
    Shot("first-day-audit-log", "/admin/operations/audit/", situation=FIRST_DAY),
    Shot("broker-away", "/admin/operations/", "^No job can be sent", BOTH, BROKER_AWAY),
    Shot("broker-away-queue", QUEUE, situation=BROKER_AWAY),
    Shot("broker-away-jobs", JOB, situation=BROKER_AWAY),
    Shot("broker-away-workers", "/admin/operations/workers/", situation=BROKER_AWAY),
)
