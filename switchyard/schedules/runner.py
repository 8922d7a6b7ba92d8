"""The scheduler: one leader sends the ticks of every schedule and runs the maintenance tasks."""

import datetime
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dramatiq

from switchyard.broker import clock
from switchyard.broker.admin.purge import finish
from switchyard.broker.admin.scheduled import pull_forward
from switchyard.broker.errors import BrokerRefused
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.job_records import sweep
from switchyard.conf import declared_yard
from switchyard.database import LOOP_AGE_S, keep_in_loop, tidy_connections
from switchyard.loggers import get_logger
from switchyard.long_running import LEASE_S, RENEW_S, Leadership, LogThrottle
from switchyard.schedules import services
from switchyard.schedules.registry import Schedule, minute_of, schedules
from switchyard.schedules.rows import stored_schedules


@dataclass(frozen=True, slots=True)
class MaintenanceTask:
    """A function that the leading scheduler calls periodically, ``every_s`` after the end of the last call.

    Args:
        always: It runs in schedulers that do not lead as well.
        lock_s: Longest wait for a lock of SQLite, of one that runs often; ``None`` for that of the settings.
    """

    name: str
    every_s: float
    run: Callable[[], Any]
    always: bool = False
    lock_s: float | None = None


def maintenance_tasks() -> tuple[MaintenanceTask, ...]:
    """Return the tasks: alerts, broker, letters, purges, batches, records, bulk acts, old rows."""
    from switchyard.alerts.sending import LOCK_S, AwayAlert, BrokerAlerts, Throttle, dispatch_due
    from switchyard.audit import services as audit
    from switchyard.batches.counting import count_batches, forget_expired
    from switchyard.bulk import services as bulk
    from switchyard.bulk.runner import BulkRunner
    from switchyard.jobs.once import delete_old_keys

    return (
        MaintenanceTask("alerts", 2.0, partial(dispatch_due, Throttle()), lock_s=LOCK_S),
        MaintenanceTask("broker's server", 5.0, BrokerAlerts().check),
        MaintenanceTask("broker away", 5.0, AwayAlert().check, always=True),
        MaintenanceTask("dead letters", 30.0, reconcile_letters),
        MaintenanceTask("purges", 1.0, finish_moves),
        MaintenanceTask("batches", 1.0, count_batches),
        MaintenanceTask("expired batches", 3_600.0, forget_expired),
        MaintenanceTask("job records", 300.0, lambda: sweep(facilities().records)),
        MaintenanceTask("done once", 60.0, delete_old_keys),
        MaintenanceTask("bulk acts", 2.0, BulkRunner().go_on),
        MaintenanceTask("old bulk acts", 3_600.0, bulk.delete_old_rows),
        MaintenanceTask("audit log", 3_600.0, audit.delete_old_rows),
    )


def reconcile_letters() -> None:
    """Reconcile the rows of dead letters, then resolve the alerts of groups that are all triaged.

    Raises:
        BrokerUnavailable: the broker did not answer; nothing is resolved by rows that may be out of date.
    """
    from switchyard.alerts.intake import resolve_triaged
    from switchyard.dead_letters.acts import reconcile_all
    from switchyard.dead_letters.queries import open_fingerprints

    reconcile_all()
    resolve_triaged(open_fingerprints)


def finish_moves() -> int:
    """Finish purges, and what a clock ahead has delayed, in every queue; return the number of messages.

    Raises:
        BrokerUnavailable: the broker did not answer.
        BrokerRefused: it refused a queue; the others are done.
    """
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        return 0
    records = facilities(broker).records
    done, refused = 0, []
    # Of most queues there is nothing to finish: all are asked at once.
    keys = [records.keys.queue(queue.name) for queue in declared_yard().queues]
    asked = [ask for each in keys for ask in (("EXISTS", each.purges), ("HEXISTS", each.notes, "ahead"))]
    answers = records.calls.pipeline(asked, raise_errors=False)
    for each, *found in zip(keys, answers[::2], answers[1::2], strict=True):
        if found == [0, 0]:
            continue
        try:
            family = broker.lane(each.queue)[0]
            done += finish(family, records) + pull_forward(family)
        except BrokerRefused as error:  # a key of a wrong type in one queue must not hold up the others
            refused.append(error)
    if refused:
        raise refused[0]
    return done


def start(task: MaintenanceTask, *, leading: Callable[[], bool], stop: threading.Event) -> threading.Thread:
    """Start a thread that runs a task periodically while ``leading()`` is true, or always, until ``stop`` is set."""
    name = f"maintenance {task.name}"
    thread = threading.Thread(target=_run_periodically, args=(task, leading, stop), name=name, daemon=True)
    thread.start()
    return thread


def _run_periodically(task: MaintenanceTask, leading: Callable[[], bool], stop: threading.Event) -> None:
    throttle = LogThrottle(task.name)
    if task.every_s < LOOP_AGE_S:
        keep_in_loop(task.lock_s)
    while not stop.wait(task.every_s):
        if not task.always and not leading():
            continue
        tidy_connections()
        with throttle:
            task.run()
        tidy_connections()


POLL_S = 1.0
STOP_WITHIN_S = 2.0
log = get_logger("switchyard.scheduler")


class Scheduler:
    """Scheduler that sends ticks and runs maintenance tasks while its process leads.

    Args:
        maintenance_tasks: Tasks the leader runs beside the ticks.
        now: Wall clock, in UTC; by default the yard's, which is the server's where this host's is wrong.
        lease_s, renew_s: See ``Leadership``.
        poll_s: Seconds between two checks of the lease and of due ticks.
    """

    def __init__(
        self,
        *,
        maintenance_tasks: Sequence[MaintenanceTask] = (),
        now: Callable[[], datetime.datetime] = clock.utc_now,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        poll_s: float = POLL_S,
    ) -> None:
        own = facilities()
        self.leadership = Leadership(own.records.calls, own.records.keys, lease_s=lease_s, renew_s=renew_s)
        self._tasks, self._now, self._poll_s, self._clock = maintenance_tasks, now, poll_s, own.clock
        self._throttles: dict[str, LogThrottle] = {}
        self._lease_throttle, self._rows_throttle = LogThrottle("lease"), LogThrottle("stored schedules")
        self._faulty: dict[str, str] = {}
        self._was_leading = False
        self._sent_minute: datetime.datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set, then release the lease."""
        log.info("scheduler started", schedules=len(schedules()), maintenance_tasks=len(self._tasks))
        threads = [start(task, leading=self.leadership.held, stop=stop) for task in self._tasks]
        try:
            while not stop.is_set():
                tidy_connections()
                self.step()
                stop.wait(self._pause_s())
        finally:
            stop.set()
            for thread in threads:
                thread.join(STOP_WITHIN_S)
            self.leadership.release()
        log.info("scheduler stopped")

    def step(self) -> None:
        """Acquire or renew the lease once and send the ticks that are due. Logs failures; the next step retries."""
        leading: bool | None = None
        with self._lease_throttle:
            leading = self.leadership.acquire_or_renew()
        if leading is None:
            return
        if self._clock is not None:
            self._clock.compare()
        if leading != self._was_leading:
            log.info("leading" if leading else "another scheduler leads, standing by")
            self._was_leading, self._sent_minute = leading, None
        if leading:
            self._send_due()

    def _send_due(self) -> None:
        now = self._now()
        minute = minute_of(now)
        if minute == self._sent_minute:
            return
        # A failed schedule delays no other; the minute is retried until all its ticks are sent.
        sent = [self._send(schedule, minute, now) for schedule in schedules()]
        stored = self._stored()
        sent += [self._send(schedule, minute, now) for schedule in stored or ()]
        if all(sent) and stored is not None:
            self._sent_minute = minute

    def _stored(self) -> list[Schedule] | None:
        """Return the schedules of rows; ``None`` while the database does not answer."""
        with self._rows_throttle:
            found, faulty = stored_schedules()
            if faulty != self._faulty:
                log.warning("stored schedules that cannot be used are not sent", faults=faulty)
                self._faulty = faulty
            return found
        return None

    def _send(self, schedule: Schedule, minute: datetime.datetime, now: datetime.datetime) -> bool:
        with self._throttles.setdefault(schedule.name, LogThrottle(f"schedule {schedule.name}")):
            state = services.load_state(schedule, minute)
            if services.pass_pause(schedule, state, now):
                return True
            for tick in schedule.due(state.since, minute):
                # A process suspended for longer than the lease may have lost it to another scheduler.
                if not self.leadership.held():
                    return False
                job_id = services.send_tick(schedule, tick, now)
                if job_id is not None:
                    late_ms = int((now - tick).total_seconds() * 1000)
                    log.info("tick", schedule=schedule.name, tick=tick.isoformat(), job_id=job_id, late_ms=late_ms)
            return True
        return False

    def _pause_s(self) -> float:
        now = self._now()
        return min(self._poll_s, 60 - now.second - now.microsecond / 1_000_000)  # to the next minute
