"""Checks of what goes beside the jobs: alerts, dead letters, the history and the scheduler."""

import datetime
from collections.abc import Iterator
from contextlib import closing

from django.db.models import Count, Max, Q
from django.utils import timezone

from switchyard.alerts.models import BACKOFF_S, Alert, Delivery
from switchyard.batches.queries import stuck
from switchyard.broker.health.servers import servers_of
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.conf import declared_yard
from switchyard.console.formatting import ago, counted, duration
from switchyard.console.links import page_url
from switchyard.dead_letters.queries import groups
from switchyard.history.models import JobRow
from switchyard.long_running import HISTORY_WRITER, LEASE_S, SCHEDULER, anyone_leads
from switchyard.operations.findings.facts import quick_client
from switchyard.operations.findings.finding import Button, Finding, FindingGroup
from switchyard.outbox.rows import MOST_ROWS, figures
from switchyard.schedules.models import ScheduleState, ScheduleTick
from switchyard.schedules.registry import minute_of, schedules
from switchyard.schedules.rows import stored_schedules

ALERTS = FindingGroup("alerts")
LATELY = datetime.timedelta(days=1)
# Jobs of a schedule that were cancelled one after the other, by the next tick each.
REPLACED = 3


def _failed_at(state: str, tries: int, next_try_at: datetime.datetime) -> datetime.datetime:
    """Return when a channel refused a delivery: one that is to be retried is due some seconds after that."""
    waits_s = BACKOFF_S[min(tries, len(BACKOFF_S)) - 1] if state == Delivery.State.PENDING else 0
    return next_try_at - datetime.timedelta(seconds=waits_s)


def look_at_alerts() -> Iterator[Finding]:
    """Check the deliveries of the last day and the open critical alerts."""
    lately = Delivery.objects.filter(next_try_at__gte=timezone.now() - LATELY)
    given_up = Q(state=Delivery.State.GIVEN_UP)
    failing = Q(state=Delivery.State.PENDING, tries__gt=0) & ~Q(error="")
    channels = lately.order_by().values("channel").annotate(sent_at=Max("sent_at"))
    counts = channels.annotate(given_up=Count("id", filter=given_up), failing=Count("id", filter=failing))
    found = 0
    for row in counts.annotate(error=Max("error", filter=given_up | failing)):
        # A channel that accepted an alert after its last failure has recovered.
        if not row["given_up"] + row["failing"]:
            continue
        failures = lately.filter(given_up | failing, channel=row["channel"])
        failed = max(_failed_at(*each) for each in failures.values_list("state", "tries", "next_try_at"))
        if row["sent_at"] and row["sent_at"] > failed:
            continue
        found += 1
        sent = f"the last delivery was {ago(row['sent_at'])}" if row["sent_at"] else "none was delivered"
        given_up_text = f"{counted(row['given_up'], 'alert')} given up, " if row["given_up"] else ""
        seen = f"{row['channel']}: {given_up_text}{row['failing']} to be retried ({row['error']}); {sent}"
        named = "SWITCHYARD_SMTP_URL" if row["channel"].startswith("email ") else "SWITCHYARD_ALERT_URLS"
        cause = f"Its server is down or refuses the alert, or {named} is wrong"
        step = f"Check that server and {named}; until then read the alerts in {_page()}"
        yield ALERTS.warning("channel", seen, cause, step, row["channel"])
    if not found:
        yield ALERTS.ok("no channel fails")
    unseen = Alert.objects.filter(state=Alert.State.OPEN, severity=Alert.Severity.CRITICAL)
    if unseen.exclude(kind="finding").exists():  # those alone are told as long as they last
        waiting = counted(count := unseen.count(), "critical alert")
        seen = f"{waiting} {'is' if count == 1 else 'are'} not acknowledged"
        step = f"Acknowledge them in {_page()} or with `manage.py switchyard alerts acknowledge ID`"
        then = "Who acknowledges an alert tells the others that somebody works on it; its count goes on."
        button = Button(f"Acknowledge {waiting}…", "switchyard-alerts")
        yield ALERTS.warning("open", seen, "Nobody has acted on them", step, then=then, button=button)


def _page() -> str:
    return page_url("switchyard-alerts") or "the room"


DEAD_LETTERS = FindingGroup("dead letters")
SHOWN = 5


def look_at_dead_letters() -> Iterator[Finding]:
    """Report the groups with new letters."""
    found = [group for group in groups(limit=100) if group.new]
    for group in found[:SHOWN]:
        seen = f"{group.new:,} new of {group.actor} in {group.queue}: {group.exception}"
        step = f"manage.py switchyard deadletters list --group {group.fingerprint}"
        cause = "Their retries are exhausted, or the failure is permanent; nothing consumes a dead list"
        yield DEAD_LETTERS.warning("new", seen, cause, step, group.queue)
    if len(found) > SHOWN:
        seen = f"and {counted(len(found) - SHOWN, 'more group')}"
        yield DEAD_LETTERS.warning("new", seen, "", "manage.py switchyard deadletters list")
    if not found:
        yield DEAD_LETTERS.ok("no new dead letter")


HISTORY = FindingGroup("history")
BEHIND_MS = 60_000


def look_at_history() -> Iterator[Finding]:
    """Check the writer's lease and the streams in the broker."""
    keys = declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls:
        queues = [queue.name for queue in declared_yard().queues]
        away = servers_of(calls, keys, queues).away().queues
        streams = HistoryStreams(calls, keys, (queue for queue in queues if queue not in away))
        leads = anyone_leads(calls, keys, HISTORY_WRITER)
        backlog, counts = streams.backlog(), streams.counts()
    oldest_ms = max((each.oldest_age_ms or 0 for each in backlog), default=0)
    waits = f"the oldest jobs that ended wait {duration(oldest_ms)} to be written" if oldest_ms else "nothing waits"
    if not leads:
        cause = "None runs, or it stands still; the broker keeps what fits its budget, and drops the oldest rows then"
        yield HISTORY.warning("down", f"no history writer leads; {waits}", cause, "manage.py switchyard runhistory")
    elif oldest_ms > BEHIND_MS:
        cause = "The database does not answer or refuses to write, or jobs end faster than the writer writes"
        step = "Read the log of manage.py switchyard runhistory, then the database findings"
        yield HISTORY.warning("behind", waits, cause, step)
    else:
        yield HISTORY.ok(f"a history writer leads; {counted(counts['written'], 'row')} written, {waits}")
    for each in backlog:
        if each.dropped:
            were = "was" if each.dropped == 1 else "were"
            seen = f"{counted(each.dropped, 'row')} of {each.queue} {were} dropped: the history has a gap"
            cause = "They outgrew the budget of bytes while no writer wrote or the database was away"
            step = f"Once read: valkey-cli HDEL '{keys.queue(each.queue).ended}' dropped"
            yield HISTORY.warning("dropped", seen, cause, step, each.queue)
    if counts["skipped"]:
        were = "was" if counts["skipped"] == 1 else "were"
        seen = f"{counted(counts['skipped'], 'row')} could not be read or stored, and {were} skipped"
        cause = "Another program, or a release that writes another form, added them; the log of runhistory names each"
        yield HISTORY.warning("skipped", seen, cause, f"Once read: valkey-cli HDEL {keys.history_counts()} skipped")


OUTBOX = FindingGroup("outbox")
UNSENT_MS = 30_000


def look_at_outbox() -> Iterator[Finding]:
    """Check the rows that wait in the outbox."""
    count, oldest_ms = figures()
    waits = f"{counted(count, 'message')} {'waits' if count == 1 else 'wait'} in the outbox"
    if oldest_ms <= UNSENT_MS:
        yield OUTBOX.ok(waits if count else "nothing waits in the outbox")
        return
    full = count >= MOST_ROWS
    seen = f"{waits}, the oldest for {duration(oldest_ms)}{': new work is refused' if full else ''}"
    cause = "The broker does not answer, a queue is full, no history process runs, or a message fails each time"
    step = "Read the other findings, then the log of manage.py switchyard runhistory"
    yield OUTBOX.finding("error" if full else "warning", "behind", seen, cause, step)


BATCHES = FindingGroup("batches")


def look_at_batches() -> Iterator[Finding]:
    """Check the batches that have not ended."""
    found = stuck()
    if not found:
        yield BATCHES.ok("every batch goes on")
        return
    [(first, why), *others] = found
    more = f", and {counted(len(others), 'other')}" if others else ""
    seen = f"batch {first.name} does not go on: {why}{more}"
    cause = "Its members are held back, no scheduler leads, or the callback's queue refuses it; the log names the error"
    step = f"manage.py switchyard batches show {first.id}"
    button = Button("Show the batch", "switchyard-batch", first.id)
    yield BATCHES.warning("stuck", seen, cause, step, first.name, button=button)


SCHEDULES = FindingGroup("scheduler")
LATE = datetime.timedelta(minutes=2)
SENT_LATE_MS = 60_000


def look_at_leader() -> Iterator[Finding]:
    """Check the leader's lease in the broker."""
    lock = declared_yard().keys.lock(SCHEDULER)
    with quick_client() as client:
        left_ms = int(client.pttl(lock))
    if left_ms == -2:
        seen = "no scheduler leads: no schedule is sent"
        cause = "No scheduler runs; missed ticks are caught up as each schedule declares"
        yield SCHEDULES.warning("down", seen, cause, "manage.py switchyard runscheduler", button=look_at_schedules())
    elif left_ms == -1 or left_ms > LEASE_S * 1000:
        seen = f"the leader's lease {'never expires' if left_ms == -1 else f'expires in {duration(left_ms)}'}"
        cause = "Another program wrote the lock; no scheduler can take over, and two may lead once it is deleted"
        yield SCHEDULES.error("lease", seen, cause, f"valkey-cli DEL {lock}", button=look_at_schedules())
    else:
        yield SCHEDULES.ok(f"a scheduler leads, its lease expires in {duration(left_ms)}")


def look_at_schedules() -> Button | None:
    """Return the button that leads to all schedules; ``None`` where there is none."""
    count = len(schedules())
    return Button(f"Show {counted(count, 'schedule')}", "switchyard-schedules") if count else None


def _look_at(name: str) -> Button:
    return Button(f"Show the schedule {name}", "switchyard-schedule", name)


def look_at_ticks() -> Iterator[Finding]:
    """Check the last tick of each schedule in the database."""
    now, step = timezone.now(), "manage.py switchyard schedules list"
    states = {state.actor: state for state in ScheduleState.objects.all()}
    stored, faulty = stored_schedules()
    late, paused = len(faulty), 0
    for name, fault in faulty.items():
        yield SCHEDULES.warning("late", f"{name} is not sent", fault, step, name, button=look_at_schedules())
    for schedule in (*schedules(), *stored):
        state = states.get(schedule.name)
        if state is None:
            continue  # not seen by a scheduler yet
        if state.is_paused(now):
            paused += 1
            yield _paused(schedule.name, state)
            continue
        due = schedule.next(state.since)
        if due is not None and due <= minute_of(now) - LATE:
            late += 1
            seen = f"{schedule.name} was due {duration((now - due).total_seconds() * 1000)} ago and was not sent"
            cause = "No scheduler leads, or it cannot reach broker or database"
            yield SCHEDULES.warning("late", seen, cause, step, schedule.name, button=_look_at(schedule.name))
        elif state.lateness_ms is not None and state.lateness_ms > SENT_LATE_MS:
            late += 1
            seen = f"the last tick of {schedule.name} was sent {duration(state.lateness_ms)} late"
            cause = "No scheduler led when it was due; it has been caught up"
            yield SCHEDULES.ok(seen, cause=cause, subject=schedule.name)
    for schedule in stored:
        if schedule.overlap == "replace" and _replaces_all(schedule.name):
            seen = f"every job of the schedule {schedule.name} is cancelled by the next tick: the last {REPLACED} were"
            cause = "A job of it takes longer than the time between two ticks"
            step = f"Give {schedule.name} more time between its ticks, or the overlap `skip`: a job ends then"
            yield SCHEDULES.warning("replaced", seen, cause, step, schedule.name, button=_look_at(schedule.name))
    if not late:
        others = f", {paused} paused" if paused else ""
        yield SCHEDULES.ok(f"{counted(len(states), 'schedule')}, none is late{others}")


def _replaces_all(name: str) -> bool:
    """Return whether the jobs of a schedule's ticks that ended last were all cancelled."""
    ticks = ScheduleTick.objects.filter(schedule=name, outcome=ScheduleTick.Outcome.SENT).order_by("-due_at")
    jobs = list(ticks.values_list("job_id", flat=True)[: 2 * REPLACED])
    ended = JobRow.objects.filter(job_id__in=jobs).order_by("-finished_at").values_list("state", flat=True)
    return list(ended[:REPLACED]) == ["cancelled"] * REPLACED


def _paused(name: str, state: ScheduleState) -> Finding:
    until = f"until {state.paused_until:%Y-%m-%d %H:%M} UTC" if state.paused_until else "without an end"
    missed = f", and has missed {counted(state.missed, 'tick')}, which will not be sent"
    seen = f"{name} is paused {until}{missed if state.missed else '; it has missed no tick yet'}"
    reason = f": {state.paused_reason}" if state.paused_reason else ", without a reason"
    cause = f"{state.paused_by or 'An operator'} paused it{reason}"
    step = f"manage.py switchyard schedules resume {name}"
    return SCHEDULES.warning("paused", seen, cause, step, name, button=_look_at(name))
