"""The last ticks of each schedule."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from switchyard.schedules.models import ScheduleTick

KEPT = 50


def note_sent(schedule: str, tick: datetime.datetime, job_id: str, lateness_ms: int | None) -> None:
    """Keep a tick that was sent. Nothing changes when it is kept already."""
    _keep(schedule, [_tick(schedule, tick, ScheduleTick.Outcome.SENT, job_id=job_id, lateness_ms=lateness_ms)])


def note_run(schedule: str, now: datetime.datetime, job_id: str, by: str) -> None:
    """Keep a run that a person asked for."""
    _keep(schedule, [_tick(schedule, now, ScheduleTick.Outcome.RUN_NOW, job_id=job_id, by=by)])


def note_missed(schedule: str, ticks: Iterable[datetime.datetime], by: str) -> None:
    """Keep ticks that fell due during a pause, at most ``KEPT`` of them."""
    _keep(schedule, [_tick(schedule, tick, ScheduleTick.Outcome.MISSED, by=by) for tick in ticks])


def last_ticks(schedule: str, limit: int = KEPT) -> list[ScheduleTick]:
    """Return a schedule's last ticks and runs, newest first."""
    return list(ScheduleTick.objects.filter(schedule=schedule).order_by("-due_at", "-id")[:limit])


def _tick(
    schedule: str, due_at: datetime.datetime, outcome: str, *, job_id: str = "", by: str = "",
    lateness_ms: int | None = None,
) -> ScheduleTick:  # fmt: skip
    return ScheduleTick(
        schedule=schedule, due_at=due_at, outcome=outcome, job_id=job_id, by=by[:150], lateness_ms=lateness_ms
    )


def _keep(schedule: str, ticks: list[ScheduleTick]) -> None:
    if not ticks:
        return
    ScheduleTick.objects.bulk_create(ticks, ignore_conflicts=True)
    of_this = ScheduleTick.objects.filter(schedule=schedule)
    too_many = of_this.order_by("-due_at", "-id").values_list("due_at", flat=True)[KEPT : KEPT + 1]
    for oldest in too_many:
        of_this.filter(due_at__lte=oldest).delete()
