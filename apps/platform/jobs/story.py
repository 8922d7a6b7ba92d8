"""A job's steps, facts and result as the admin shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.platform.console.formatting import duration
from apps.platform.jobs.presentation import public_result
from broker.clock import datetime_of
from broker.stores.job_records import JobRecord

# Classes in room.css.
TONES = {
    "scheduled": "sy-calm",
    "queued": "sy-calm",
    "running": "sy-ok",
    "retrying": "sy-warn",
    "succeeded": "sy-ok",
    "cancelled": "sy-calm",
    "expired": "sy-warn",
    "dead": "sy-bad",
}
LONGEST_OWNER = 256
ENDINGS = {"succeeded": "Succeeded", "cancelled": "Cancelled", "expired": "Expired", "dead": "Given up"}


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step of a job, past or due, with a note."""

    name: str
    at: datetime
    note: str = ""

    @property
    def shown_at(self) -> str:
        """The time in UTC, to the millisecond."""
        return f"{self.at:%d %b %Y, %H:%M:%S}.{self.at.microsecond // 1000:03d}".removeprefix("0")


@dataclass(frozen=True, slots=True)
class Story:
    """Content of a job's page in the admin.

    Args:
        tone: CSS class of the job's state.
        facts: Names and values, in order.
        percent: Progress, 0 to 100; ``None`` if none was reported.
        result: Return value as indented JSON; empty if none is stored.
    """

    tone: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[StoryStep, ...]
    percent: int | None
    progress_note: str
    result: str


def story_of(job: JobRecord) -> Story:
    """Return a job's story."""
    done, total, note = _progress(job.progress)
    result = public_result(job.result)
    return Story(
        tone=TONES.get(job.state, "sy-calm"),
        facts=tuple((name, value) for name, value in _facts(job) if value),
        steps=tuple(_steps(job)),
        percent=min(100 * done // total, 100) if total > 0 else None,
        progress_note=f"{done:,} of {total:,}{f', {note}' if note else ''}" if total > 0 else "",
        result="" if result is None else json.dumps(result, indent=2, ensure_ascii=False),
    )


def _facts(job: JobRecord) -> list[tuple[str, str]]:
    return [
        ("Actor", job.actor),
        ("Queue", job.queue),
        ("Reason", (job.reason or "").replace("_", " ")),
        ("Attempts", str(job.attempts)),
        ("Owner", job.owner[:LONGEST_OWNER]),
        ("Waited", _span(job.enqueued_at, job.started_at)),
        ("Ran", _span(job.started_at, job.finished_at)),
        (
            "Cancellation",
            "requested; it stops within 10 seconds" if job.cancel_requested and not job.ended else "",
        ),
    ]


def _steps(job: JobRecord) -> list[StoryStep]:
    steps = []
    if job.enqueued_at is not None:
        steps.append(StoryStep("Enqueued", datetime_of(job.enqueued_at)))
    if job.started_at is not None:
        steps.append(StoryStep("Started", datetime_of(job.started_at), f"attempt {job.attempts}"))
    if job.next_attempt_at is not None:
        name = "Tried again" if job.state == "retrying" else "Due"
        steps.append(StoryStep(name, datetime_of(job.next_attempt_at), "not before"))
    if job.finished_at is not None:
        steps.append(StoryStep(ENDINGS.get(job.state, "Ended"), datetime_of(job.finished_at)))
    return steps


def _progress(progress: dict[str, Any] | None) -> tuple[int, int, str]:
    if not progress:
        return 0, 0, ""
    return int(progress.get("done") or 0), int(progress.get("total") or 0), str(progress.get("note") or "")


def _span(start: int | None, end: int | None) -> str:
    if start is None or end is None or end < start:
        return ""
    return duration(end - start)
