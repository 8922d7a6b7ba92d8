"""Sending of ticks, each exactly once, and the stored progress of each schedule."""

import datetime
import difflib
import itertools
import uuid
from typing import Any

from django.db import DatabaseError
from django.db.models import F

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import JobRecords
from switchyard.database import storable
from switchyard.jobs.services import submit
from switchyard.loggers import get_logger
from switchyard.middleware.envelope import sent_by_schedule
from switchyard.schedules import queries
from switchyard.schedules.models import ScheduleState, ScheduleTick
from switchyard.schedules.registry import MINUTE, MOST_AT_ONCE, Schedule, minute_of, schedules
from switchyard.schedules.rows import all_schedules, from_json, save

log = get_logger("switchyard.scheduler")
TICK_KEPT_S = 7 * 24 * 3600
# Clocks of two schedulers may differ by so much.
CLOCKS_DIFFER = datetime.timedelta(minutes=1)
# Ticks that are forgotten when a clock was ahead, the latest ones: more than a hundred days of minutes.
MOST_FORGOTTEN, FORGOTTEN_AT_ONCE = 150_000, 500
# Values of a tick's key: claimed by a scheduler, then what became of it; or that it was sent before its time, and when
# that was noticed.
CLAIMED, AGAIN = b"claimed", b"again "
Outcome = ScheduleTick.Outcome
SENT, SKIPPED, DROPPED = (outcome.value.encode() for outcome in (Outcome.SENT, Outcome.SKIPPED, Outcome.DROPPED))
_TICKS = uuid.UUID("5b0a1c51-6d0f-5f0e-9d9e-6f1d1b0f7c11")


def find(name: str) -> Schedule:
    """Return the schedule of a periodic actor, or of a row.

    Raises:
        NotFound: no periodic actor, and no row that can be used, has that name.
        django.db.DatabaseError: the database, asked for rows alone, did not answer.
    """
    declared = next((schedule for schedule in schedules() if schedule.name == name), None)
    if declared is not None:  # without the database: it can be run now while that is away
        return declared
    known = {schedule.name: schedule for schedule in all_schedules()}
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard schedules list"
        raise NotFound(f"schedule {name}: no periodic actor and no usable row has that name; {remedy}")
    return known[name]


def run_now(name: str, *, who: Who, reason: str = "") -> str:
    """Enqueue a schedule's actor now, independent of its ticks and of a pause, and return the job id.

    Raises:
        NotFound: no schedule has that name.
        BrokerUnavailable: the broker did not answer.
    """
    with act("schedule.run", who=who, target=name, reason=reason, essential=False) as entry:
        schedule = find(name)
        with sent_by_schedule(name, user=who.name):
            job_id = submit(schedule.actor, *schedule.args, kwargs=schedule.kwargs)
        tick = ScheduleTick(due_at=clock.utc_now(), outcome=Outcome.RUN_NOW, job_id=job_id, by=who.name)
        try:
            queries.keep(name, tick)
        except DatabaseError as error:  # the job is sent: raising here would report that it is not
            log.warning("run not kept in the history", schedule=name, job_id=job_id, error=type(error).__name__)
        entry.detail = {"job": job_id}
    return job_id


def load_state(schedule: Schedule, minute: datetime.datetime) -> ScheduleState:
    """Return a schedule's stored state. A new schedule, or one whose expression changed, starts with ``minute``.

    So does one whose progress lies in the future, because a clock was ahead: it would be silent for as long.
    """
    before = minute - datetime.timedelta(minutes=1)
    fresh = {"spec": schedule.timing, "since": before}
    state, created = ScheduleState.objects.get_or_create(actor=schedule.name, defaults=fresh)
    is_ahead = state.since > minute + CLOCKS_DIFFER
    if is_ahead:
        log.warning("progress lies in the future, ticks go on from now", schedule=schedule.name, since=str(state.since))
        _forget(schedule, minute, state.since)
    if not created and (is_ahead or state.spec != schedule.timing):
        state.spec, state.since = schedule.timing, before
        state.save(update_fields=["spec", "since"])
    return state


def send_tick(schedule: Schedule, tick: datetime.datetime, now: datetime.datetime) -> str | None:
    """Settle one tick and store what became of it; return the job id, or ``None`` if none was sent here and now.

    Claims the tick with a key kept for 7 days, enqueues it, skips it for an unfinished job or drops it by its
    deadline, then marks the key. If a scheduler dies in between, the next one finds the claim and enqueues the tick
    only if its job, whose id is derived from the schedule's name and the minute, does not exist. One that a clock ahead
    had sent before its time is sent again, as another job. After ``BrokerUnavailable`` call again.
    """
    outcome, is_new, job_id = _settle(schedule, tick, now)
    late_ms = max(int((now - tick).total_seconds() * 1000), 0) if is_new else None
    sent_id = job_id if outcome == Outcome.SENT else ""
    queries.keep(schedule.name, ScheduleTick(due_at=tick, outcome=outcome, job_id=sent_id, lateness_ms=late_ms))
    fields: dict[str, object] = {"since": tick}
    if outcome == Outcome.SENT:
        fields |= {"last_tick": tick, "last_job_id": job_id} | ({} if late_ms is None else {"lateness_ms": late_ms})
    elif is_new:
        log.info(f"tick {outcome}", schedule=schedule.name, tick=tick.isoformat(), late_ms=late_ms)
    ScheduleState.objects.filter(actor=schedule.name, since__lt=tick).update(**fields)
    return job_id if is_new and outcome == Outcome.SENT else None


def job_id_of(schedule: str, tick: datetime.datetime, again: str = "") -> str:
    return str(uuid.uuid5(_TICKS, f"{schedule} {tick.isoformat()}{again}"))


def _forget(schedule: Schedule, minute: datetime.datetime, until: datetime.datetime) -> None:
    """Have the ticks after ``minute`` that were settled before their time settled again when they are due."""
    records, again = facilities(schedule.actor.broker).records, AGAIN + minute.isoformat().encode()
    ahead = itertools.islice(schedule.back(minute, until), MOST_FORGOTTEN)
    while ticks := list(itertools.islice(ahead, FORGOTTEN_AT_ONCE)):
        keys = [_key(records, schedule, tick) for tick in ticks]
        records.calls.pipeline([("SET", key, again, "XX", "EX", TICK_KEPT_S) for key in keys])
    ScheduleTick.objects.filter(schedule=schedule.name, due_at__gt=minute).exclude(outcome=Outcome.RUN_NOW).delete()


def _key(records: JobRecords, schedule: Schedule, tick: datetime.datetime) -> str:
    return records.keys.tick(schedule.name, tick.strftime("%Y-%m-%dT%H:%MZ"))


def _settle(
    schedule: Schedule, tick: datetime.datetime, now: datetime.datetime
) -> tuple[ScheduleTick.Outcome, bool, str]:
    """Return what became of a tick, whether it was settled here and now, and the id of its job."""
    records = facilities(schedule.actor.broker).records
    key, job_id = _key(records, schedule, tick), job_id_of(schedule.name, tick)
    was_sent = False
    if records.calls.command("SET", key, CLAIMED, "NX", "EX", TICK_KEPT_S) is None:
        if (known := records.calls.command("GET", key)) in (SENT, SKIPPED, DROPPED):
            return Outcome(known.decode()), False, job_id
        if known and known.startswith(AGAIN):
            job_id = job_id_of(schedule.name, tick, known.decode())
        was_sent = records.read(job_id) is not None
    outcome = Outcome.SENT if was_sent else _decided(schedule, tick, now)
    if outcome == Outcome.SENT and not was_sent:
        with sent_by_schedule(schedule.name):
            schedule.actor.broker.enqueue(schedule.message(job_id))
    records.calls.command("SET", key, outcome.value, "EX", TICK_KEPT_S)
    return outcome, not was_sent, job_id


def _decided(schedule: Schedule, tick: datetime.datetime, now: datetime.datetime) -> ScheduleTick.Outcome:
    if schedule.deadline_s is not None and (now - tick).total_seconds() > schedule.deadline_s:
        return Outcome.DROPPED
    unfinished = [] if schedule.overlap == "allow" else _unfinished_jobs(schedule, tick)
    if schedule.overlap == "skip" and unfinished:
        return Outcome.SKIPPED
    for job_id in unfinished:
        cancel(facilities(schedule.actor.broker), job_id)
    return Outcome.SENT


def _unfinished_jobs(schedule: Schedule, tick: datetime.datetime) -> list[str]:
    """Return the jobs before a tick that have not ended: the last, and any whose scheduler died before it stored it."""
    state = ScheduleState.objects.filter(actor=schedule.name).first()
    if state is None:
        return []
    unstored = itertools.islice(schedule.back(state.since, tick - MINUTE), MOST_AT_ONCE)
    job_ids = [*([state.last_job_id] if state.last_job_id else []), *(job_id_of(schedule.name, at) for at in unstored)]
    records = facilities(schedule.actor.broker).records.read_many(job_ids)
    return [job_id for job_id, known in zip(job_ids, records, strict=True) if known is not None and not known.ended]


# A schedule of every minute that was paused for two months; more are counted as so many.
MOST_COUNTED = 100_000


def pause(name: str, *, who: Who, reason: str = "", until: datetime.datetime | None = None) -> ScheduleState:
    """Pause a schedule, or change the reason and the end of its pause; return its state.

    Its ticks are missed until it is resumed or ``until`` is over. Later they are not sent either.

    Raises:
        NotFound: no schedule has that name.
        django.db.DatabaseError: the database did not answer; nothing is paused.
    """
    now = clock.utc_now()
    detail = {} if until is None else {"until": until.isoformat()}
    with act("schedule.pause", who=who, target=name, reason=reason, detail=detail):
        schedule = find(name)
        state = load_state(schedule, minute_of(now))
        pass_pause(schedule, state, now)
        fields = ["paused_until", "paused_by", "paused_reason"]
        if not state.is_paused(now):
            state.paused_at, state.missed = now, 0
            fields += ["paused_at", "missed"]
        state.paused_until, state.paused_by, state.paused_reason = until, who.name[:150], storable(reason)[:500]
        state.save(update_fields=fields)
    return state


def resume(name: str, *, who: Who, reason: str = "") -> int | None:
    """Resume a schedule; return the number of ticks that its pause missed, ``None`` if it was not paused.

    Missed ticks are not sent; the next one is.

    Raises:
        NotFound: no schedule has that name.
        django.db.DatabaseError: the database did not answer; nothing is resumed.
    """
    now = clock.utc_now()
    with act("schedule.resume", who=who, target=name, reason=reason) as entry:
        schedule = find(name)
        state = ScheduleState.objects.filter(actor=name).first()
        if state is None or not state.is_paused(now):
            entry.count = 0
            return None
        _miss(schedule, state, minute_of(now))
        _end(state)
        entry.detail = {"missed": state.missed}
        return state.missed


def import_row(given: Any, *, who: Who, reason: str = "") -> bool:
    """Store an item of an export as a new or changed row, and pause or resume it; return whether anything changed.

    Raises:
        ArgumentsRefused: the item or its row has faults; nothing is stored.
        django.db.DatabaseError: the database did not answer.
    """
    row, paused = from_json(given)
    changed = save(row, who=who, reason=reason)
    state = ScheduleState.objects.filter(actor=row.name).first()
    was_paused = state is not None and state.is_paused(clock.utc_now())
    if paused and not was_paused:
        pause(row.name, who=who, reason=reason or "it was paused where it was exported")
    elif was_paused and not paused:
        resume(row.name, who=who, reason=reason)
    return changed or paused != was_paused


def pass_pause(schedule: Schedule, state: ScheduleState, now: datetime.datetime) -> bool:
    """Count the ticks that a pause misses; return whether the schedule is paused.

    Of a pause that ended by itself the ticks before its end are missed, also when no scheduler ran then.
    """
    if state.is_paused(now):
        _miss(schedule, state, minute_of(now))
        return True
    if state.paused_at is not None and state.paused_until is not None:
        _miss(schedule, state, minute_of(state.paused_until - datetime.timedelta(microseconds=1)))
        _end(state)
    return False


def _miss(schedule: Schedule, state: ScheduleState, until: datetime.datetime) -> None:
    """Mark a schedule's ticks up to a minute as done, without sending them."""
    if until <= state.since:
        return
    back = schedule.back(state.since, until)
    newest = list(itertools.islice(back, queries.KEPT))
    count = len(newest) + sum(1 for _ in itertools.islice(back, MOST_COUNTED))
    # Compared and set: of two schedulers that both believe to lead, one counts.
    unchanged = ScheduleState.objects.filter(pk=state.pk, since=state.since)
    if unchanged.update(since=until, missed=F("missed") + count):
        missed = (ScheduleTick(due_at=tick, outcome=Outcome.MISSED, by=state.paused_by) for tick in newest)
        queries.keep(schedule.name, *missed)
    state.refresh_from_db(fields=["since", "missed"])


def _end(state: ScheduleState) -> None:
    state.paused_at = state.paused_until = None
    ScheduleState.objects.filter(pk=state.pk).update(paused_at=None, paused_until=None)
