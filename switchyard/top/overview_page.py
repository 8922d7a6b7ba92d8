"""The overview as text, with the sentences of the page: the verdict with what helps, the yard, what runs, alerts."""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import NoReverseMatch

from switchyard.conf import declared_yard
from switchyard.console.formatting import ago, duration, size, whole_duration
from switchyard.console.runbook import runbook
from switchyard.jobs.running import RunningJob
from switchyard.operations.diagnosis import Verdict
from switchyard.operations.findings.lateness import LATE_WORDS
from switchyard.operations.overview import PoolRow, Room
from switchyard.operations.rows import Row
from switchyard.top.text_page import TextCell, TextColumn, TextPage, TextPlace, TextRow, TextSection

SHOWN_RUNNING = 12
YARD = (
    TextColumn("queue"),
    TextColumn("state"),
    TextColumn("oldest / promise", right=True),
    TextColumn("waiting", right=True),
    TextColumn("later", right=True),
    TextColumn("retry", right=True),
    TextColumn("busy/slots", right=True),
    TextColumn("dead", right=True),
    TextColumn("", from_width=104),
)
POOLS = (
    TextColumn("pool"),
    TextColumn("state"),
    TextColumn("busy/slots", right=True),
    TextColumn("memory", right=True),
    TextColumn("heartbeat", right=True),
    TextColumn("restarts"),
    TextColumn("kind", from_width=96),
)
RUNNING = (
    TextColumn("actor"),
    TextColumn("queue"),
    TextColumn("runs for", right=True),
    TextColumn("limit", right=True),
    TextColumn("job", is_id=True),
    TextColumn("worker", from_width=104),
    TextColumn("progress", from_width=128),
)
ALERTS = (TextColumn("last"), TextColumn("state"), TextColumn("alert"), TextColumn("times", right=True))


def help_lines(verdict: Verdict) -> list[str]:
    """Return what helps: what happens and what to do, the page's button, and the command that does the same."""
    lines = [f"Then: {verdict.then}"] if verdict.then and verdict.then != verdict.step else []
    if verdict.action:
        lines.append(f"On the page: {verdict.action}{_address(verdict)}")
    if verdict.step and (not lines or verdict.step not in lines[0]):
        word = "Command" if verdict.step.startswith(("manage.py", "kill")) else "Next"
        lines.append(f"{word}: {verdict.step}")
    if verdict.findings:
        lines.append(f"Steps: {runbook(verdict.label)}")
    return lines


def _address(verdict: Verdict) -> str:
    try:
        return f" ({verdict.href})"
    except NoReverseMatch:  # a host project without these pages
        return ""


def also_lines(room: Room) -> Iterator[str]:
    """Yield what else was found, the schedules that are paused, and what the history lacks."""
    yield from (f"Also: {sentence}" for sentence in room.also)


def overview_page(room: Room) -> TextPage:
    """Return the overview below its verdict."""
    return TextPage(
        "Overview",
        (
            _verdict(room),
            TextSection("The yard", _yard_note(room), YARD, tuple(_track(row) for row, _ in room.drawn_rows)),
            running_section(room.running),
            _pools(room),
            _alerts(room),
        ),
        command="manage.py switchyard top --once",
    )


def running_section(running: list[RunningJob] | None, *, most: int = SHOWN_RUNNING) -> TextSection:
    """Return what runs, the longest first."""
    if running is None:
        return TextSection("Running now", empty="Unknown while the broker is unavailable.")
    note = f"{len(running):,} job{'' if len(running) == 1 else 's'}, the longest first" if running else ""
    rows = tuple(map(_running, running[:most]))
    return TextSection(
        "Running now", note, RUNNING, rows, empty="Nothing runs. A job is here from its start to its end."
    )


def _verdict(room: Room) -> TextSection:
    facts = ["   ".join(f"{number} {meaning}" for number, meaning in room.verdict.facts)] if room.verdict.facts else []
    return TextSection(lines=(*help_lines(room.verdict), *also_lines(room), *facts))


def _yard_note(room: Room) -> str:
    if room.old_at is not None:
        return f"the last figures, of {room.old_at:%H:%M:%S} UTC: what waits now is unknown"
    return "what waits is unknown while the broker does not answer" if room.away else ""


def _track(row: Row) -> TextRow:
    name = f"  {row.name}" if row.kind == "lane" else row.name
    opens = TextPlace("command", ("queues", "status", row.queue)) if row.queue else None
    if row.kind == "pool":
        opens = TextPlace("command", ("workers", "--pool", row.name))
    unknown = row.waiting is None
    return TextRow(
        (
            name,
            TextCell(row.state.word, row.state.level),
            TextCell(_age(row), row.state.level if row.state.word in LATE_WORDS else ""),
            "unknown" if unknown else f"{row.waiting:,}",
            "" if unknown else f"{row.held:,}",
            "" if row.retrying is None else f"{row.retrying:,}",
            "" if unknown else f"{row.busy}/{row.slots}",
            TextCell("" if row.dead is None else f"{row.dead:,}", "bad" if row.dead else ""),
            TextCell(row.state.detail, row.state.level),
        ),
        opens,
    )


def _age(row: Row) -> str:
    """Return the age of the oldest message against its promise: ``41 s / 1 s``."""
    if row.kind != "queue" or not row.queue:
        return duration(row.oldest_age_ms) if row.oldest_age_ms is not None else ""
    queue = declared_yard().queue_of(row.queue)
    age_ms, objective_ms = row.oldest_age_ms, queue.objective_ms
    if row.done_ratio is not None and row.done_ratio > max(row.ratio or 0, 1):
        age_ms, objective_ms = row.unfinished_age_ms, queue.done_objective_ms
    promised = whole_duration(objective_ms) if objective_ms is not None else "none"
    return f"{'–' if age_ms is None else duration(age_ms)} / {promised}"


def _running(job: RunningJob) -> TextRow:
    progress = job.progress or {}
    done = f"{progress['done']:,} of {progress['total']:,}" if progress.get("total") else ""
    return TextRow(
        (
            job.actor,
            job.queue,
            TextCell("unknown" if job.ran_ms is None else duration(job.ran_ms), "warn" if job.is_over_limit else ""),
            duration(job.limit_ms) if job.limit_ms else "–",
            job.id,
            job.holder.name,
            done,
        ),
        TextPlace("command", ("jobs", "show", job.id)),
    )


def _pools(room: Room) -> TextSection:
    note = f"{room.pools_up} of {len(room.pools)} up, {room.slots} slots, {size(room.memory_bytes)}"
    if room.away:
        note = "unknown while the broker is unavailable"
    return TextSection("Pools", note, POOLS, tuple(map(_pool, room.pools)))


def _pool(pool: PoolRow) -> TextRow:
    up = pool.state is not None and pool.state.up
    level = "calm" if pool.state is None else "ok" if up else "bad"
    return TextRow(
        (
            pool.name,
            TextCell(pool.state.state if pool.state else "unknown", level),
            f"{pool.state.busy}/{pool.state.slots}" if pool.state and up else "–",
            size(pool.state.memory_bytes) if pool.state and up else "–",
            ago(pool.beat_at) if pool.beat_at else "–",
            pool.restarts,
            f"{pool.kind}, {pool.processes} × {pool.slots}",
        ),
        TextPlace("command", ("workers", "--pool", pool.name)),
    )


def _alerts(room: Room) -> TextSection:
    if room.alerts is None:
        return TextSection("Recent alerts", empty="Unknown while the database is unavailable.")
    levels = {"open": "bad", "resolved": "ok"}
    rows = tuple(
        TextRow(
            (
                ago(alert.last_at),
                TextCell(alert.get_state_display().lower(), levels.get(alert.state, "warn")),
                alert.title,
                f"{alert.count:,}",
            ),
            TextPlace("command", ("alerts", "show", str(alert.pk))),
        )
        for alert in room.alerts
    )
    empty = "None. A dead letter raises an alert, at most one for each cause in ten minutes."
    return TextSection("Recent alerts", "", ALERTS, rows, empty=empty)
