"""Sending of ticks, each exactly once, and the stored progress of each schedule."""

from __future__ import annotations

import datetime
import difflib
import uuid

from django.db import DatabaseError

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import JobRecords
from switchyard.jobs.services import submit
from switchyard.loggers import get_logger
from switchyard.middleware.origin import FixedSender, sent_by
from switchyard.schedules import strips
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.registry import Schedule, schedules

log = get_logger("switchyard.scheduler")
TICK_KEPT_S = 7 * 24 * 3600
# Clocks of two schedulers may differ by so much.
CLOCKS_DIFFER = datetime.timedelta(minutes=1)
CLAIMED, SENT = b"claimed", b"sent"
_TICKS = uuid.UUID("5b0a1c51-6d0f-5f0e-9d9e-6f1d1b0f7c11")


def find(name: str) -> Schedule:
    """Return the schedule of a periodic actor.

    Raises:
        NotFound: no periodic actor has that name.
    """
    known = {schedule.name: schedule for schedule in schedules()}
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard schedules list"
        raise NotFound(f"schedule {name}: no actor of that name is periodic; {remedy}")
    return known[name]


def run_now(name: str, *, who: Who, reason: str = "") -> str:
    """Enqueue a schedule's actor now, independent of its ticks and of a pause, and return the job id.

    Raises:
        NotFound: no periodic actor has that name.
        BrokerUnavailable: the broker did not answer.
    """
    with act("schedule.run", who=who, target=name, reason=reason, essential=False) as entry:
        with sent_by(FixedSender(schedule=name, user=who.name)):
            job_id = submit(find(name).actor, kwargs={})
        try:
            strips.note_run(name, clock.utc_now(), job_id, who.name)
        except DatabaseError as error:  # the job is sent: raising here would report that it is not
            log.warning("run not kept in the history", schedule=name, job_id=job_id, error=type(error).__name__)
        entry.count, entry.detail = 1, {"job": job_id}
    return job_id


def load_state(schedule: Schedule, minute: datetime.datetime) -> ScheduleState:
    """Return a schedule's stored state. A new schedule, or one whose expression changed, starts with ``minute``.

    So does one whose progress lies in the future, because a clock was ahead: it would be silent for as long.
    """
    before = minute - datetime.timedelta(minutes=1)
    state, created = ScheduleState.objects.get_or_create(
        actor=schedule.name, defaults={"spec": schedule.text, "since": before}
    )
    is_ahead = state.since > minute + CLOCKS_DIFFER
    if is_ahead:
        log.warning("progress lies in the future, ticks go on from now", schedule=schedule.name, since=str(state.since))
        _forget(schedule, state.last_tick)
    if not created and (is_ahead or state.spec != schedule.text):
        state.spec, state.since = schedule.text, before
        state.save(update_fields=["spec", "since"])
    return state


def send_tick(schedule: Schedule, tick: datetime.datetime, now: datetime.datetime) -> str | None:
    """Enqueue one tick and store it; return the job id, or ``None`` if another scheduler has sent it.

    Claims the tick with a key kept for 7 days, enqueues it, then marks the key as sent. If a scheduler dies in
    between, the next one finds the claim and enqueues the tick only if its job, whose id is derived from actor and
    minute, does not exist.

    Raises:
        BrokerUnavailable: the broker did not answer; call again.
    """
    job_id = str(uuid.uuid5(_TICKS, f"{schedule.name} {tick.isoformat()}"))
    sent_now = _send_once(schedule, tick, job_id)
    fields = {"since": tick, "last_tick": tick, "last_job_id": job_id}
    late_ms = max(int((now - tick).total_seconds() * 1000), 0) if sent_now else None
    if late_ms is not None:
        fields["lateness_ms"] = late_ms
    strips.note_sent(schedule.name, tick, job_id, late_ms)
    ScheduleState.objects.filter(actor=schedule.name, since__lt=tick).update(**fields)
    return job_id if sent_now else None


def _forget(schedule: Schedule, tick: datetime.datetime | None) -> None:
    """Have a tick that was sent before its time sent again when it is due."""
    if tick is not None:
        records = facilities(schedule.actor.broker).records
        records.calls.command("DEL", _key(records, schedule, tick))


def _key(records: JobRecords, schedule: Schedule, tick: datetime.datetime) -> str:
    return records.keys.tick(schedule.name, tick.strftime("%Y-%m-%dT%H:%MZ"))


def _send_once(schedule: Schedule, tick: datetime.datetime, job_id: str) -> bool:
    records = facilities(schedule.actor.broker).records
    key = _key(records, schedule, tick)
    sent = False
    if records.calls.command("SET", key, CLAIMED, "NX", "EX", TICK_KEPT_S) is None:
        if records.calls.command("GET", key) == SENT:
            return False
        sent = records.read(job_id) is not None
    if not sent:
        with sent_by(FixedSender(schedule=schedule.name)):
            schedule.actor.broker.enqueue(schedule.actor.message().copy(message_id=job_id))
    records.calls.command("SET", key, SENT, "EX", TICK_KEPT_S)
    return not sent
