"""The scheduler: somebody leads, nobody leads for ever, and no tick is late."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from django.utils import timezone

from apps.platform.console.formatting import duration
from apps.platform.doctor.finding import Finding
from apps.platform.doctor.snapshot import quick_client
from apps.platform.schedules.leadership import LEASE_S, LOCK
from apps.platform.schedules.models import ScheduleState
from apps.platform.schedules.registry import schedules
from apps.platform.schedules.ticks import minute_of
from broker.keys.keys import Keys

GROUP = "scheduler"
LATE = datetime.timedelta(minutes=2)
SENT_LATE_MS = 60_000


def look_at_leader() -> Iterator[Finding]:
    """Ask the broker who leads.

    Raises:
        redis.RedisError: it does not answer.
    """
    with quick_client() as client:
        left_ms = int(client.pttl(Keys().lock(LOCK)))
    if left_ms == -2:
        seen = "no scheduler leads: nothing periodic is sent, no alert goes out"
        cause = "None runs; missed ticks are caught up as each schedule says, alerts wait"
        yield Finding(GROUP, "down", "warning", seen, cause, "manage.py runscheduler")
    elif left_ms == -1 or left_ms > LEASE_S * 1000:
        seen = (
            "the leader's lease never lapses" if left_ms == -1 else f"the leader's lease lapses in {duration(left_ms)}"
        )
        cause = "Something else wrote the lock; no scheduler can take over, and two may lead when it is deleted"
        yield Finding(GROUP, "lease", "error", seen, cause, f"valkey-cli DEL {Keys().lock(LOCK)}")
    else:
        yield Finding(GROUP, "leads", "ok", f"one leads, its lease runs for {duration(left_ms)} more")


def look_at_ticks() -> Iterator[Finding]:
    """Ask the database how far each schedule came.

    Raises:
        django.db.DatabaseError: it does not answer.
    """
    now = timezone.now()
    states = {state.actor: state for state in ScheduleState.objects.all()}
    late = 0
    for schedule in schedules():
        state = states.get(schedule.name)
        if state is None:
            continue  # no scheduler has seen it yet
        due = schedule.next(state.since)
        if due is not None and due <= minute_of(now) - LATE:
            late += 1
            seen = f"{schedule.name} was due {duration((now - due).total_seconds() * 1000)} ago and was not sent"
            cause = "No scheduler leads, or it cannot reach broker or database"
            yield Finding(GROUP, "late", "warning", seen, cause, "manage.py schedules list", schedule.name)
        elif state.lateness_ms is not None and state.lateness_ms > SENT_LATE_MS:
            late += 1
            seen = f"the last tick of {schedule.name} was sent {duration(state.lateness_ms)} late"
            cause = "No scheduler led when it was due; it was caught up since"
            yield Finding(GROUP, "was_late", "ok", seen, cause, subject=schedule.name)
    if not late:
        yield Finding(GROUP, "on_time", "ok", f"{len(states)} schedules, none is late")
