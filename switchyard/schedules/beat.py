"""Rows of django-celery-beat, read from its tables in this database: the package may be gone already."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, Final

from django.db import connection

from switchyard.broker.errors import NotFound
from switchyard.schedules.triggers import UTC

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
