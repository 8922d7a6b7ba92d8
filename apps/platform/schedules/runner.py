"""The scheduler: one leader sends each schedule's ticks and does the yard's chores."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Sequence

import structlog
from django.db import close_old_connections
from django.utils import timezone
from dramatiq.broker import Broker

from apps.platform.schedules import maintenance, services, ticks
from apps.platform.schedules.leadership import LEASE_S, RENEW_S, Leadership
from apps.platform.schedules.log_throttle import LogThrottle
from apps.platform.schedules.registry import Schedule, schedules
from broker.interface import facilities

POLL_S = 1.0
STOP_WITHIN_S = 2.0
log = structlog.get_logger("switchyard.scheduler")


class Scheduler:
    """Send ticks while this one leads.

    Args:
        broker: Whose periodic actors are sent; Dramatiq's global one by default.
        chores_done: What the leader does besides.
        now: The wall clock, in UTC.
        lease_s: See ``Leadership``; so for ``renew_s``.
        poll_s: How often it looks whether it leads and a tick is due.
    """

    def __init__(
        self,
        broker: Broker | None = None,
        *,
        chores_done: Sequence[maintenance.Chore] = (),
        now: Callable[[], datetime.datetime] = timezone.now,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        poll_s: float = POLL_S,
    ) -> None:
        records = facilities(broker).records
        self.leadership = Leadership(records.client, records.keys, lease_s=lease_s, renew_s=renew_s)
        self._broker, self._chores, self._now, self._poll_s = broker, chores_done, now, poll_s
        self._complaints: dict[str, LogThrottle] = {}
        self._lease_complaints = LogThrottle("lease")
        self._led = False
        self._done: datetime.datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set; then give the lease back."""
        log.info("scheduler started", schedules=len(schedules(self._broker)), chores=len(self._chores))
        threads = [maintenance.start(chore, leading=self.leadership.held, stop=stop) for chore in self._chores]
        try:
            while not stop.is_set():
                close_old_connections()
                self.step()
                stop.wait(self._pause_s())
        finally:
            stop.set()
            for thread in threads:
                thread.join(STOP_WITHIN_S)
            self._release()
        log.info("scheduler stopped")

    def step(self) -> None:
        """Look once: take or renew the lease, and send what is due. Failures are logged and tried again."""
        try:
            leading = self.leadership.tend()
        except Exception as error:  # noqa: BLE001  logged by complaints; the loop must outlive every failure
            self._lease_complaints.failed(error)
            return
        self._lease_complaints.fine()
        self._tell(leading)
        if leading:
            self._send_due()

    def _send_due(self) -> None:
        now = self._now()
        minute = ticks.minute_of(now)
        if minute == self._done:
            return
        # One schedule that fails holds no other up; the minute is looked at again until all are sent.
        sent = [self._send(schedule, minute, now) for schedule in schedules(self._broker)]
        if all(sent):
            self._done = minute

    def _send(self, schedule: Schedule, minute: datetime.datetime, now: datetime.datetime) -> bool:
        complaints = self._complaints.setdefault(schedule.name, LogThrottle(f"schedule {schedule.name}"))
        try:
            since = services.known_state(schedule, minute).since
            for tick in schedule.due(since, minute):
                # Stopped or starved for longer than the lease: another may be leading by now.
                if not self.leadership.held():
                    return False
                job_id = services.send_tick(schedule, tick, now)
                if job_id is not None:
                    late_ms = int((now - tick).total_seconds() * 1000)
                    log.info("tick", schedule=schedule.name, tick=tick.isoformat(), job_id=job_id, late_ms=late_ms)
        except Exception as error:  # noqa: BLE001  logged by complaints; the loop must outlive every failure
            complaints.failed(error)
            return False
        complaints.fine()
        return True

    def _tell(self, leading: bool) -> None:
        if leading != self._led:
            log.info("leading" if leading else "another scheduler leads, standing by")
            self._led = leading
            self._done = None

    def _pause_s(self) -> float:
        now = self._now()
        to_next_minute_s = 60 - now.second - now.microsecond / 1_000_000
        return min(self._poll_s, to_next_minute_s)

    def _release(self) -> None:
        try:
            self.leadership.release()
        except Exception as error:  # noqa: BLE001  logged; the lease runs out by itself
            log.warning("lease not given back, it runs out by itself", error=str(error))
