"""Cron expressions in words, for the common ones: ``40 3 * * *`` is every day at 03:40."""

from __future__ import annotations

import re

WEEKDAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
NAMES = {name[:3].lower(): number for number, name in enumerate(WEEKDAYS[:7])}
MINUTES, HOURS = 60, 24
FIELDS = 5
_NUMBER = re.compile(r"\d{1,2}")
_STEP = re.compile(r"\*/(\d{1,2})")


def words_of(text: str) -> str:
    """Return a cron expression in words; "" for one that has no short form."""
    fields = text.split()
    if len(fields) != FIELDS:
        return ""
    minute, hour, day, month, weekday = fields
    if month != "*":
        return ""
    if hour == day == weekday == "*":
        return _within_hour(minute)
    if not _NUMBER.fullmatch(minute):
        return ""
    if (step := _STEP.fullmatch(hour)) and day == weekday == "*":
        return f"every {step[1]} h at minute {int(minute)}" if HOURS % max(int(step[1]), 1) == 0 else ""
    if not _NUMBER.fullmatch(hour):
        return ""
    at = f"at {int(hour):02}:{int(minute):02}"
    if day == weekday == "*":
        return f"every day {at}"
    if day == "*":
        return _weekday(weekday, at)
    return f"on the {_ordinal(int(day))} {at}" if weekday == "*" and _NUMBER.fullmatch(day) else ""


def _within_hour(minute: str) -> str:
    if minute in ("*", "*/1"):
        return "every minute"
    if step := _STEP.fullmatch(minute):
        return f"every {step[1]} min" if int(step[1]) and MINUTES % int(step[1]) == 0 else ""
    if not _NUMBER.fullmatch(minute):
        return ""
    return "every hour" if int(minute) == 0 else f"every hour at minute {int(minute)}"


def _weekday(weekday: str, at: str) -> str:
    if weekday == "1-5":
        return f"Mondays to Fridays {at}"
    number = NAMES.get(weekday.lower(), int(weekday) if weekday.isdecimal() else len(WEEKDAYS))
    return f"{WEEKDAYS[number]} {at}" if number < len(WEEKDAYS) else ""


def _ordinal(day: int) -> str:
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"
