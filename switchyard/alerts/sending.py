"""Sending of due deliveries, each channel in its own thread: one that hangs or fails delays no other."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import DatabaseError
from django.db.models import F

from switchyard.alerts.channels import Channel, ChannelFailed, LogChannel, channels
from switchyard.alerts.intake import notice_of, notice_of_group, write_alert
from switchyard.alerts.models import BACKOFF_S, Alert, Delivery
from switchyard.alerts.notice import Notice
from switchyard.alerts.silences import UNRESOLVED, in_force, is_quiet, sent_as_finding
from switchyard.broker import clock
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertGroup
from switchyard.loggers import get_logger
from switchyard.long_running import LogThrottle

log = get_logger(__name__)

MOST_TRIES, BATCH = 5, 50
# Seconds into a batch after which a channel starts no further message. One message takes at most DEADLINE_S (5 s).
BUDGET_S = 4.0
BATCH_ENDS_S = 10.0
CLAIM_S = 60
# Without rows it sends as well: a lock that lasts must not hold up who is called for it.
LOCK_S = 3.0
# Dead letters of which a finding tells that was sent wait for its end, and are looked at again after so long.
HELD_S = 15
# What was given up is tried again after the first, for the second: its channel may be back.
RETRY_AFTER, KEPT_FOR = timedelta(minutes=5), timedelta(days=1)


@dataclass(slots=True)
class ChannelBatch:
    """Messages of one channel in one batch; ``results`` has each failure by the message's id, ``None`` for none."""

    name: str
    channel: Channel
    notices: Sequence[Notice]
    results: dict[str, ChannelFailed | None] = field(default_factory=dict)

    def run(self) -> None:
        """Send the messages in order until the channel does not answer or ``BUDGET_S`` is spent."""
        started, results = time.monotonic(), self.results
        for item in self.notices:
            if time.monotonic() - started > BUDGET_S:
                return
            try:
                self.channel.send(item)
            except ChannelFailed as error:
                results[item.id] = error
                if not error.answered:
                    return
            except Exception as error:  # noqa: BLE001  an error in one channel must not stop the others
                results[item.id] = ChannelFailed(self.name, f"{type(error).__name__} in the channel")
                return
            else:
                results[item.id] = None


def send_all(batches: Sequence[ChannelBatch]) -> None:
    """Run all channels in parallel for at most ``BATCH_ENDS_S``; a message without an answer by then has failed."""
    threads = [threading.Thread(target=batch.run, name=f"alerts {batch.name}", daemon=True) for batch in batches]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + BATCH_ENDS_S
    for thread, batch in zip(threads, batches, strict=True):
        thread.join(max(0.0, ends - time.monotonic()))
        # A thread that outlives the deadline writes into the old dict, which nobody reads.
        batch.results = dict(batch.results)
        waiting = next((notice.id for notice in batch.notices if notice.id not in batch.results), None)
        if thread.is_alive() and waiting is not None:
            batch.results[waiting] = ChannelFailed(batch.name, f"no answer in {BATCH_ENDS_S:.0f} s")


def send_due(targets: Mapping[str, Channel]) -> int:
    """Send the due deliveries and store the results; return how many messages were accepted.

    Raises:
        django.db.DatabaseError: rows could not be read or written; messages sent meanwhile may be sent again.
    """
    claimed: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in _claim_due(list(targets)):
        claimed[delivery.channel].append(delivery)
    batches = [ChannelBatch(name, targets[name], [notice_of(each) for each in due]) for name, due in claimed.items()]
    send_all(batches)
    return sum(_record_results(batch, claimed[batch.name]) for batch in batches)


def _claim_due(names: Sequence[str]) -> list[Delivery]:
    now = clock.utc_now()
    pending = Delivery.objects.filter(state=Delivery.State.PENDING, next_try_at__lte=now)
    # Unresolved, one more try every five minutes for what a channel did not accept.
    given_up = Delivery.objects.filter(state=Delivery.State.GIVEN_UP, alert__state__in=UNRESOLVED)
    given_up = given_up.filter(next_try_at__lt=now - RETRY_AFTER, next_try_at__gte=now - KEPT_FOR)
    if not (pending | given_up).exists():
        return []
    given_up.update(state=Delivery.State.PENDING, tries=MOST_TRIES - 1, next_try_at=now)
    gone = pending.exclude(channel__in=names)
    gone.update(state=Delivery.State.GIVEN_UP, error="the channel is no longer configured")
    silenced = set(in_force().values_list("fingerprint", flat=True))
    if silenced:  # since the alert waits
        held = pending if "" in silenced else pending.filter(alert__fingerprint__in=silenced)
        held.update(state=Delivery.State.SILENCED)
    if is_quiet(now):
        pending = pending.filter(alert__severity=Alert.Severity.CRITICAL)
    claimed = []
    for delivery in pending.filter(channel__in=names).select_related("alert")[:BATCH]:
        # Of several schedulers the one whose update matches sends. After a crash the delivery is due again in 60 s.
        mine = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.PENDING, next_try_at=delivery.next_try_at)
        if delivery.alert.kind == "dead_letter" and sent_as_finding(delivery.alert, delivery.channel):
            mine.update(next_try_at=now + timedelta(seconds=HELD_S))
            continue
        if mine.update(next_try_at=now + timedelta(seconds=CLAIM_S), tries=F("tries") + 1):
            delivery.tries += 1
            claimed.append(delivery)
    return claimed


def _record_results(batch: ChannelBatch, deliveries: Sequence[Delivery]) -> int:
    failures = [result for result in batch.results.values() if result is not None]
    no_answer = next((failure for failure in failures if not failure.answered), None)
    accepted = 0
    for delivery, item in zip(deliveries, batch.notices, strict=True):
        now = clock.utc_now()
        if item.id in batch.results and batch.results[item.id] is None:
            delivery.state, delivery.sent_at, delivery.error = Delivery.State.SENT, now, ""
            accepted += 1
        elif failure := batch.results.get(item.id) or no_answer:
            _record_failure(delivery, failure)
        else:  # not attempted
            delivery.tries, delivery.next_try_at = delivery.tries - 1, now
        delivery.save(update_fields=("state", "sent_at", "error", "tries", "next_try_at"))
    return accepted


def _record_failure(delivery: Delivery, failure: ChannelFailed) -> None:
    delivery.error = failure.fact[:300]
    channel, alert, tries = delivery.channel, delivery.alert_id, delivery.tries
    if tries >= MOST_TRIES:
        delivery.state = Delivery.State.GIVEN_UP
        log.error("alert given up", channel=channel, alert=alert, tries=tries, why=failure.fact)
        return
    delivery.next_try_at = clock.utc_now() + timedelta(seconds=BACKOFF_S[tries - 1])
    log.warning("alert not sent", channel=channel, alert=alert, tries=tries, why=failure.fact)


GROUPS_AT_ONCE = 20
_rows = LogThrottle("rows of alerts, which are sent without", __name__)

MOST_A_MINUTE, MINUTE_S = 8, 60.0


class Throttle:
    """Limit of messages about dead letters: eight a minute over all causes; further ones wait, and go on counting.

    Alerts of other kinds are told at once: there is one for each kind of finding.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._told_s = clock, deque[float](maxlen=MOST_A_MINUTE)

    def holds(self, group: AlertGroup) -> bool:
        """Return whether a group has to wait; if not, it counts as told."""
        if group.sample.kind != "dead_letter":
            return False
        now_s = self._clock()
        if len(self._told_s) == MOST_A_MINUTE and now_s - self._told_s[0] < MINUTE_S:
            return True
        self._told_s.append(now_s)
        return False


# Dead letters told while the database did not answer, by fingerprint: their rows follow once it does, for people to
# acknowledge. Other kinds last, and are written by what judges them.
_unwritten: dict[str, AlertGroup] = {}


def dispatch_due(throttle: Throttle | None = None) -> int:
    """Claim the due alert groups and send them to every channel; return how many messages were accepted.

    The scheduler calls this function every 2 s. It takes about 10 s if a channel hangs. Safe to run in two
    processes. While the database does not answer, messages are sent without rows.

    The caller renews its database connection between calls.
    """
    targets = channels()
    alerts = facilities().alerts
    accepted = 0
    for group in alerts.claim_due(GROUPS_AT_ONCE):
        if throttle is not None and throttle.holds(group):
            continue  # its claim expires, and it is due again, behind others
        try:
            written = write_alert(group, targets)
        except DatabaseError as error:
            _rows.failed(error)
            # Without settling, the claim expires and the group is due again.
            if told := send_without_rows(group, targets):
                accepted += told
                alerts.settle(group)
                if group.sample.kind == "dead_letter":
                    _unwritten[group.fingerprint] = group
        else:
            alerts.settle(written)
    try:
        for fingerprint, group in list(_unwritten.items()):
            write_alert(group, ())
            del _unwritten[fingerprint]
        accepted += send_due(targets)
        _rows.succeeded()
    except DatabaseError as error:
        _rows.failed(error)
    return accepted


def send_without_rows(group: AlertGroup, targets: Mapping[str, Channel]) -> int:
    """Send a group while the database is away; return how many channels accepted it.

    0 if only the log did, beside which there are others: a line there has not reached anybody.
    """
    notice = notice_of_group(group)
    batches = [ChannelBatch(name, channel, [notice]) for name, channel in targets.items()]
    send_all(batches)
    accepted = [batch.channel for batch in batches if batch.results.get(notice.id, True) is None]
    told = any(not isinstance(channel, LogChannel) for channel in accepted) or len(accepted) == len(targets)
    return len(accepted) if told else 0
