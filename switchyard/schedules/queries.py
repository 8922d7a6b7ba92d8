"""Reads of the schedules, for the command and the admin; and of django-celery-beat's rows, without the package."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db import connection

from switchyard.broker.errors import BrokerError, NotFound
from switchyard.broker.interface import facilities
from switchyard.console.formatting import ago, counted
from switchyard.long_running import anyone_leads
from switchyard.schedules.models import ScheduleState, ScheduleTick
from switchyard.schedules.registry import UTC, Schedule
from switchyard.schedules.rows import all_schedules

LATE_MS = 60_000
STEP_PX, HIGH_PX, SHORT_PX = 8, 16, 7


def draw(ticks: list[ScheduleTick]) -> dict[str, Any]:
    """Return bars, oldest first, and the same in words."""
    bars, counts = [], {"on time": 0, "late": 0, "missed": 0, "skipped": 0, "dropped": 0, "run now": 0}
    for number, tick in enumerate(ticks):
        word = word_of(tick)
        counts[word] += 1
        short = word == "late"
        kind = "gone" if word in ("missed", "skipped", "dropped") else "late-bar" if short else "busy"
        height = SHORT_PX if short else HIGH_PX
        bars.append({"x": number * STEP_PX + 1, "y": HIGH_PX + 1 - height, "height": height, "kind": kind})
    return {"bars": bars, "words": ", ".join(f"{count} {word}" for word, count in counts.items() if count)}


def word_of(tick: ScheduleTick) -> str:
    """Return what became of a tick: ``on time``, ``late``, ``missed``, ``skipped``, ``dropped`` or ``run now``."""
    if tick.outcome == ScheduleTick.Outcome.SENT:
        return "late" if (tick.lateness_ms or 0) > LATE_MS else "on time"
    return str(tick.outcome).replace("_", " ")


KEPT = 50


def last_ticks(schedule: str, limit: int = KEPT) -> list[ScheduleTick]:
    """Return a schedule's last ticks and runs, newest first."""
    return list(ScheduleTick.objects.filter(schedule=schedule).order_by("-due_at", "-id")[:limit])


def keep(schedule: str, *ticks: ScheduleTick) -> None:
    """Keep ticks that were settled or missed, or runs that a person asked for; at most ``KEPT``, each once."""
    if not ticks:
        return
    for tick in ticks:
        tick.schedule, tick.by = schedule, tick.by[:150]
    ScheduleTick.objects.bulk_create(ticks, ignore_conflicts=True)
    of_this = ScheduleTick.objects.filter(schedule=schedule)
    for oldest in of_this.order_by("-due_at", "-id").values_list("due_at", flat=True)[KEPT : KEPT + 1]:
        of_this.filter(due_at__lte=oldest).delete()


SHOWN_TICKS = 14


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """State of one schedule. Fields are ``None`` before the first tick, and ``paused_at`` without a pause.

    ``next_tick`` is the next one that is sent: after the end of a pause, ``None`` if there is none.
    """

    name: str
    actor: str
    spec: str
    time_zone: str
    queue: str
    catch_up: str
    overlap: str
    deadline_s: int | None
    start: datetime.datetime | None
    end: datetime.datetime | None
    is_stored: bool
    last_tick: datetime.datetime | None
    last_job_id: str | None
    lateness_ms: int | None
    next_tick: datetime.datetime | None
    paused_at: datetime.datetime | None = None
    paused_until: datetime.datetime | None = None
    paused_by: str = ""
    paused_reason: str = ""
    missed: int = 0

    @property
    def pause_words(self) -> str:
        """Return the pause as sentences; "" for a schedule that is not paused."""
        if self.paused_at is None:
            return ""
        until = self.paused_until
        end = f"until {until.day} {until:%b %Y %H:%M} UTC" if until else "until somebody resumes it"
        reason = f": {self.paused_reason}" if self.paused_reason else ""
        by = f"Paused by {self.paused_by or 'somebody'} {ago(self.paused_at)}, {end}{reason}"
        return f"{by}. It has missed {counted(self.missed, 'tick')}; resuming sends none of them."


def overview(now: datetime.datetime) -> list[ScheduleRow]:
    """Return every schedule of code and rows by name, including those that no scheduler has run yet."""
    states = {state.actor: state for state in ScheduleState.objects.all()}
    return [row_of(schedule, states.get(schedule.name), now) for schedule in all_schedules()]


def row_of(schedule: Schedule, state: ScheduleState | None, now: datetime.datetime) -> ScheduleRow:
    known = state or ScheduleState()
    same = ("name", "catch_up", "overlap", "deadline_s", "start", "end", "is_stored")
    row = ScheduleRow(
        **{name: getattr(schedule, name) for name in same},
        actor=schedule.actor.actor_name,
        spec=schedule.trigger.expression,
        time_zone=schedule.trigger.zone,
        queue=schedule.actor.queue_name,
        last_tick=known.last_tick,
        last_job_id=known.last_job_id or None,
        lateness_ms=known.lateness_ms,
        next_tick=schedule.next(now),
    )
    if not known.is_paused(now):
        return row
    until, fields = known.paused_until, ("paused_at", "paused_until", "paused_by", "paused_reason", "missed")
    pause = {name: getattr(known, name) for name in fields}
    sent = None if until is None else schedule.next(until - datetime.timedelta(microseconds=1))
    return replace(row, next_tick=sent, **pause)


def arguments_of(found: Schedule) -> str:
    """Return a stored schedule's call as text, for users who may see arguments."""
    named = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in found.kwargs.items()]
    return ", ".join([*(json.dumps(value, ensure_ascii=False) for value in found.args), *named])


def scheduler_leads() -> bool | None:
    """Return whether a scheduler leads; ``None`` while the broker does not answer."""
    records = facilities().records
    try:
        return anyone_leads(records.calls, records.keys)
    except BrokerError:
        return None


def headline(rows: Sequence[ScheduleRow], leads: bool | None) -> str:
    """Return how the schedules do, in half a sentence; ``leads`` is as of :func:`scheduler_leads`."""
    late = sum((row.lateness_ms or 0) > LATE_MS for row in rows)
    if leads is None:
        return "Schedules"
    if not leads:
        return "No schedule is sent"
    if late:
        return f"{counted(late, 'schedule')} {'was' if late == 1 else 'were'} sent late"
    if not rows:
        return "No schedules"
    came = any(row.last_tick is not None for row in rows)
    return f"{counted(len(rows), 'schedule')}, {'sent on time' if came else 'no tick yet'}"


def paused(now: datetime.datetime) -> list[ScheduleRow]:
    return [row for row in overview(now) if row.paused_at is not None]


def recent_ticks() -> dict[str, list[ScheduleTick]]:
    """Return the last ticks of every schedule, oldest first, by its name."""
    found: dict[str, list[ScheduleTick]] = {}
    for tick in ScheduleTick.objects.order_by("-due_at", "-id"):
        of_this = found.setdefault(tick.schedule, [])
        if len(of_this) < SHOWN_TICKS:
            of_this.insert(0, tick)
    return found


TASKS: Final = "django_celery_beat_periodictask"
# Of the tasks; then of their crontab and their interval.
COLUMNS: Final = (
    *("t.name", "t.task", "t.args", "t.kwargs", "t.start_time", "t.expires", "t.enabled", "t.one_off", "t.queue"),
    *("t.crontab_id", "t.interval_id", "c.minute", "c.hour", "c.day_of_month", "c.month_of_year", "c.day_of_week"),
    *("c.timezone", "i.every", "i.period"),
)
CRON: Final = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
PERIOD_S: Final = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


def periodic_tasks(actors: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return django-celery-beat's rows as items of an export, and why others have no counterpart by their names.

    Args:
        actors: Name of a task -> name of the actor that does its work; that of a task that is not named has the name
            after the task's last dot.

    Raises:
        NotFound: the database has no table of django-celery-beat.
        django.db.DatabaseError: the database did not answer.
    """
    with connection.cursor() as cursor:
        if TASKS not in connection.introspection.table_names(cursor):
            raise NotFound(f"the database has no table {TASKS}; run the import where django-celery-beat keeps its rows")
        cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM {TASKS} t "  # noqa: S608  names of this file
            "LEFT JOIN django_celery_beat_crontabschedule c ON c.id = t.crontab_id "
            "LEFT JOIN django_celery_beat_intervalschedule i ON i.id = t.interval_id ORDER BY t.name"
        )
        names = [column.partition(".")[2] for column in COLUMNS]
        tasks = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    found, left = [], {}
    for task in tasks:
        if task["task"].startswith("celery."):  # Celery's own, such as the clean-up of its results
            left[task["name"]] = f"the task {task['task']} is Celery's own"
        elif why := _no_counterpart(task):
            left[task["name"]] = why
        else:
            found.append(_item(task, actors))
    return found, left


def _no_counterpart(task: Mapping[str, Any]) -> str:
    if task["one_off"]:
        return "it runs once; send the actor with a delay"
    if task["crontab_id"] is None and task["interval_id"] is None:
        return "it is a solar or clocked schedule; write a cron expression"
    if task["crontab_id"] is not None and task["day_of_month"] != "*" and task["day_of_week"] != "*":
        return "days of the month and weekdays must both fit in Celery, one of them suffices in cron; choose one"
    if task["interval_id"] is not None and task["every"] * PERIOD_S.get(task["period"], 0) % 60:
        return f"its interval of {task['every']} {task['period']} is not a whole number of minutes"
    try:
        json.loads(task["args"] or "[]"), json.loads(task["kwargs"] or "{}")
    except ValueError:
        return "its arguments are not JSON"
    return ""


def _item(task: Mapping[str, Any], actors: Mapping[str, str]) -> dict[str, Any]:
    by_cron = task["crontab_id"] is not None
    cron = " ".join(str(task[field]).replace(" ", "") for field in CRON)
    return {
        "name": task["name"].replace("/", "-")[:100].strip(),
        "actor": actors.get(task["task"]) or task["task"].rpartition(".")[2],
        "args": json.loads(task["args"] or "[]"),
        "kwargs": json.loads(task["kwargs"] or "{}"),
        "cron": cron if by_cron else "",
        "every_s": None if by_cron else task["every"] * PERIOD_S.get(task["period"], 0),
        "time_zone": str(task["timezone"] or UTC) if by_cron else UTC,
        "start": _iso(task["start_time"]),
        "end": _iso(task["expires"]),
        "paused": not task["enabled"],
    }


def _iso(moment: Any) -> str | None:
    """Return a time as the database has it, a text in SQLite, as ISO 8601."""
    return moment.isoformat() if isinstance(moment, datetime.datetime) else moment
