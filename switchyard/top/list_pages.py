"""The room's lists as text: queues, actors, workers, jobs, schedules, dead letters, alerts, and what a search finds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, cast

from django.utils import timezone

from switchyard.actors import queries as actors
from switchyard.alerts import queries as alerts
from switchyard.alerts.resolution import UNRESOLVED
from switchyard.broker.clock import datetime_of
from switchyard.console.formatting import ago, duration, size
from switchyard.dead_letters import queries as letters
from switchyard.dead_letters.models import DeadLetter
from switchyard.frame import finding
from switchyard.history.filters import Filter
from switchyard.jobs.listing.pages import find_jobs
from switchyard.operations import queries
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.yard.reported_workers import reported_workers
from switchyard.operations.yard.state_words import shown_rows
from switchyard.queues.facts import all_queues_sentence
from switchyard.schedules import queries as schedules
from switchyard.top.text_page import TextCell, TextColumn, TextPage, TextPlace, TextRow, TextSection

LISTED: Final = 50


class ShellRights:
    """User with every right: a shell on a host of the yard shows the same by commands."""

    def has_perm(self, right: str) -> bool:
        """Return whether a page may be seen."""
        return bool(right)


def list_page(place: TextPlace) -> TextPage:
    """Read the page of a place other than the overview and the output of a command.

    Raises:
        BrokerError: the broker did not answer.
        django.db.DatabaseError: the database did not answer.
    """
    return PAGES[place.kind](place)


def queues_page(place: TextPlace) -> TextPage:
    """List the queues."""
    state = queries.yard_state()
    rows = [row for row in shown_rows(facts_of(state)) if row.kind == "queue"]
    counted = {found.queue: found for found in queries.queues_of(state)}
    columns = tuple(
        TextColumn(name, right=name not in ("queue", "state"), from_width=width)
        for name, width in (
            *(("queue", 0), ("state", 0), ("waiting", 0), ("scheduled", 0), ("retrying", 0), ("running", 0)),
            *(("dead", 0), ("parked", 96), ("quarantined", 108)),
        )
    )
    shown = [
        TextRow(
            (
                row.queue,
                TextCell(row.state.word, row.state.level),
                *(
                    f"{getattr(counted[row.queue], name):,}" if row.queue in counted else "–"
                    for name in ("waiting", "scheduled", "retrying", "running", "dead", "parked", "quarantined")
                ),
            ),
            TextPlace("command", ("queues", "status", row.queue)),
        )
        for row in rows
    ]
    note = f"{all_queues_sentence(rows, away=False)}."
    return _page("Queues", note, columns, shown, "The yard declares no queue.", "manage.py switchyard queues")


def actors_page(place: TextPlace) -> TextPage:
    """List the actors."""
    columns = (TextColumn("actor"), TextColumn("queue"), TextColumn("pools"), TextColumn("does", from_width=96))
    rows = [
        TextRow(
            (each.name, each.queue, ", ".join(each.pools) or TextCell("none", "bad"), each.summary),
            TextPlace("command", ("actors", "show", each.name)),
        )
        for each in actors.all_actors()
    ]
    empty = "No actor; write one with @dramatiq.actor in actors.py of an installed app."
    return _page("Actors", "", columns, rows, empty, "manage.py switchyard actors list")


def workers_page(place: TextPlace) -> TextPage:
    """List the supervisors."""
    found = reported_workers()
    columns = (
        *(TextColumn("pool"), TextColumn("host"), TextColumn("pid", right=True), TextColumn("state")),
        *(TextColumn("busy/slots", right=True), TextColumn("memory", right=True), TextColumn("heartbeat")),
        *(TextColumn("release", from_width=100), TextColumn("children replaced", from_width=116)),
    )
    rows = [
        TextRow(
            (
                report.pool,
                report.host,
                str(report.pid),
                TextCell(report.state, "ok" if report.state == "up" else "warn"),
                f"{report.busy}/{report.slots}",
                size(sum(int(child.get("rss_bytes", 0)) for child in report.children)),
                ago(datetime_of(report.beat_at)),
                report.release,
                ", ".join(f"{count} by {reason}" for reason, count in sorted(report.restarts.items())) or "none",
            ),
            TextPlace("command", ("workers", "--member", report.member)),
        )
        for report in found.reports
    ]
    note = f"{found.title}. {found.lead}" if found.reports else f"{found.title}."
    return _page("Workers", note, columns, rows, found.lead, "manage.py switchyard workers")


def jobs_page(place: TextPlace) -> TextPage:
    """List jobs, newest first or in the order of their due time; ``place.of`` has names and values of conditions."""
    conditions = dict(zip(place.of[::2], place.of[1::2], strict=True))
    page = find_jobs(Filter.from_query(cast(Any, conditions)), after=place.cursor, limit=LISTED, arguments=True)
    columns = (
        TextColumn("due (UTC)" if page.by_due_time else "time (UTC)"),
        *(TextColumn("state"), TextColumn("actor"), TextColumn("queue")),
        *(TextColumn("ran", right=True), TextColumn("job", is_id=True), TextColumn("detail", from_width=104)),
    )
    levels = {"dead": "bad", "retrying": "warn", "succeeded": "ok"}
    rows = [
        TextRow(
            (
                f"{(line.due if page.by_due_time and line.due else line.shown_at):%m-%d %H:%M:%S}",
                TextCell(line.state, levels.get(line.state, "")),
                line.actor,
                line.queue,
                "–" if line.ran_ms is None else duration(line.ran_ms),
                line.id,
                line.error or line.reason.replace("_", " ") or line.excerpt,
            ),
            TextPlace("command", ("jobs", "show", line.id)),
        )
        for line in page.lines
    ]
    away = [
        *(["What has not ended is missing: the broker does not answer."] if page.broker_away else []),
        *([f"What has not ended in {', '.join(page.away)} is missing: its node does not answer."] if page.away else []),
        *(["What has ended is missing: the database does not answer."] if page.history_away else []),
    ]
    options = " ".join(f"--{name} {value}" for name, value in conditions.items())
    older = TextPlace("j", place.of, page.after) if page.after else None
    command = f"manage.py switchyard jobs list {options}".rstrip()
    return _page("Jobs", " ".join(away), columns, rows, "No job matches.", command, older)


def schedules_page(place: TextPlace) -> TextPage:
    """List the schedules."""
    columns = (
        *(TextColumn("schedule"), TextColumn("when (UTC)"), TextColumn("last"), TextColumn("late", right=True)),
        *(TextColumn("next"), TextColumn("state")),
    )
    rows = [
        TextRow(
            (
                row.name,
                row.words or row.spec,
                _time(row.last_tick, "never yet"),
                f"{row.lateness_ms / 1000:.1f} s" if row.lateness_ms is not None else "",
                _time(row.next_tick, "when resumed" if row.paused_at else "never"),
                TextCell("on", "ok") if row.paused_at is None else TextCell(f"paused by {row.paused_by}", "warn"),
            ),
            TextPlace("command", ("schedules", "show", row.name)),
        )
        for row in schedules.overview(timezone.now())
    ]
    empty = "No actor is periodic; declare one with periodic=cron(…)."
    return _page("Schedules", "", columns, rows, empty, "manage.py switchyard schedules list")


def groups_page(place: TextPlace) -> TextPage:
    """List the groups of open dead letters, the largest first."""
    columns = (
        *(TextColumn("letters", right=True), TextColumn("failure"), TextColumn("actor"), TextColumn("queue")),
        *(TextColumn("last"), TextColumn("first", from_width=96), TextColumn("group", from_width=112)),
    )
    found = letters.groups(limit=LISTED)
    rows = [
        TextRow(
            (
                TextCell(f"{group.letters:,}", "bad"),
                group.exception,
                group.actor,
                group.queue,
                ago(group.last_at),
                ago(group.first_at),
                group.fingerprint[:16],
            ),
            TextPlace("group", (group.fingerprint,)),
        )
        for group in found
    ]
    note = "Nothing consumes a dead list: letters stay until you requeue or discard them." if found else ""
    empty = "None is open. A job that is given up is kept here with its traceback until you requeue or discard it."
    return _page("Dead letters", note, columns, rows, empty, "manage.py switchyard deadletters list")


def group_page(place: TextPlace) -> TextPage:
    """List the open letters of one group, newest first."""
    [fingerprint] = place.of
    start = int(place.cursor or 0)
    found = list(letters.listing(fingerprint=fingerprint)[start : start + LISTED + 1])
    columns = (
        *(TextColumn("died"), TextColumn("failure"), TextColumn("reason"), TextColumn("tries", right=True)),
        *(TextColumn("job", is_id=True), TextColumn("state", from_width=100)),
    )
    rows = [_letter(row) for row in found[:LISTED]]
    older = TextPlace("group", place.of, str(start + LISTED)) if len(found) > LISTED else None
    title = f"Dead letters of group {fingerprint[:16]}"
    command = f"manage.py switchyard deadletters list --group {fingerprint}"
    return _page(title, "", columns, rows, "None is open any more.", command, older)


def alerts_page(place: TextPlace) -> TextPage:
    """List the unresolved alerts, newest first."""
    start = int(place.cursor or 0)
    found = alerts.counted_now(alerts.listing(states=tuple(UNRESOLVED))[start : start + LISTED + 1])
    columns = (
        *(TextColumn("last"), TextColumn("state"), TextColumn("severity"), TextColumn("alert")),
        *(TextColumn("times", right=True), TextColumn("queue", from_width=96)),
    )
    rows = [
        TextRow(
            (
                ago(alert.last_at),
                TextCell(alert.get_state_display().lower(), "bad" if alert.state == "open" else "warn"),
                alert.get_severity_display().lower(),
                alert.title,
                f"{alert.count:,}",
                alert.queue,
            ),
            TextPlace("command", ("alerts", "show", str(alert.pk))),
        )
        for alert in found[:LISTED]
    ]
    older = TextPlace("l", (), str(start + LISTED)) if len(found) > LISTED else None
    note = "An alert is resolved by itself once its dead letters are triaged or its cause has ended." if found else ""
    return _page("Alerts", note, columns, rows, "No alert is unresolved.", "manage.py switchyard alerts list", older)


def found_page(place: TextPlace) -> TextPage:
    """List what a text names, as the search of the pages does."""
    [asked] = place.of
    answer = finding.found(cast(Any, ShellRights()), asked)
    columns = (TextColumn("kind"), TextColumn("name"), TextColumn("note"))
    rows = [
        TextRow((group.title, hit.name, hit.note), place_of(hit.command))
        for group in answer.groups
        for hit in group.hits
    ]
    note = f"Not searched, because no answer came: {', '.join(answer.unread)}." if answer.unread else ""
    empty = f"Nothing is named {asked}. A job's id, or a part of a queue's, an actor's or a schedule's name finds it."
    return _page(f"Found for {asked}", note, columns, rows, empty, "")


def place_of(command: tuple[str, ...]) -> TextPlace | None:
    """Return the page that shows the same as a command; lists are pages of their own."""
    match command:
        case ("jobs", "list", option, value):
            return TextPlace("j", (option.removeprefix("--"), value))
        case ("deadletters", "list", "--group", fingerprint):
            return TextPlace("group", (fingerprint,))
        case _:
            return TextPlace("command", command) if command else None


def _letter(row: DeadLetter) -> TextRow:
    return TextRow(
        (
            ago(row.died_at),
            f"{row.exception}: {row.error}"[:120],
            row.reason.replace("_", " "),
            str(row.attempts),
            row.message_id,
            row.state,
        ),
        TextPlace("command", ("deadletters", "show", row.message_id)),
    )


def _page(
    title: str,
    note: str,
    columns: tuple[TextColumn, ...],
    rows: list[TextRow],
    empty: str,
    command: str,
    older: TextPlace | None = None,
) -> TextPage:
    lines = (note,) if note else ()
    return TextPage(title, (TextSection("", "", columns, tuple(rows), lines, empty),), command, older)


def _time(moment: datetime | None, otherwise: str) -> str:
    return f"{moment:%m-%d %H:%M}" if moment else otherwise


PAGES: Final[dict[str, Callable[[TextPlace], TextPage]]] = {
    "q": queues_page,
    "a": actors_page,
    "w": workers_page,
    "j": jobs_page,
    "s": schedules_page,
    "d": groups_page,
    "group": group_page,
    "l": alerts_page,
    "found": found_page,
}
