"""The pictures: a name, an address, and what the page must show before it is taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shot:
    """One page.

    Args:
        name: Of its files: ``<name>-light.png``, ``<name>-dark.png``, ``<name>-phone.png``.
        path: With names of :func:`addresses` in braces.
        heading: A pattern of the heading that it must show first; "" for any.
        phone: Whether a picture of a phone is taken as well.
    """

    name: str
    path: str
    heading: str = ""
    phone: bool = False


LATE = "^default is .* behind"
SHOTS = (
    Shot("overview", "/admin/operations/", LATE, phone=True),
    Shot("queue", "/admin/operations/queues/default/"),
    Shot("workers", "/admin/operations/workers/"),
    Shot("jobs", "/admin/switchyard_jobs/job/"),
    Shot("job", "/admin/switchyard_jobs/job/{job}/"),
    Shot("actor", "/admin/operations/actors/price_basket/"),
    Shot("dead-letters", "/admin/switchyard_dead_letters/deadletter/", phone=True),
    Shot("dead-letter", "/admin/switchyard_dead_letters/deadletter/{letter}/change/"),
    Shot("requeue", "/admin/switchyard_dead_letters/deadletter/group/{fingerprint}/requeue/"),
    Shot("schedules", "/admin/operations/schedules/"),
    Shot("alerts", "/admin/switchyard_alerts/alert/", phone=True),
    Shot("api", "/api/v1/docs"),
)
