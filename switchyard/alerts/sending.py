"""Sending of due deliveries, each channel in its own thread: one that hangs or fails delays no other.

And alerts about what lasts: raised once it has lasted for a while, resolved once it is gone.
"""

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django.db import DatabaseError
from django.db.models import F
from msgspec.structs import replace

from switchyard.alerts.channels import Channel, ChannelFailed, LogChannel, channels
from switchyard.alerts.intake import notice_of, notice_of_group, resolve_gone, worsen, write_alert
from switchyard.alerts.models import BACKOFF_S, Alert, Delivery
from switchyard.alerts.notice import UNRESOLVED, Notice, in_force, is_quiet, sent_as_finding
from switchyard.broker import clock
from switchyard.broker.clock import now_ms
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroup
from switchyard.loggers import get_logger
from switchyard.long_running import LogThrottle
from switchyard.workers.preflight import make_watch

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
# A notice that was given up is tried again after the first, for the second: its channel may be back.
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


# A cause that is back within the first has lasted; one that stays away for the second has ended. Between two looks that
# are further apart nothing was known, as while the broker was away: that time counts for nothing.
GAP_S, CALM_S = 10.0, 20.0


class LastingAlerts:
    """One alert for each cause of a kind, from when it has lasted until it is gone.

    The leading scheduler keeps it. A new leader raises nothing again whose alert is unresolved, and resolves nothing
    before it has looked for 20 s. ``looked_s`` are the seconds for which it was known what there is.
    """

    def __init__(self, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kind, self._clock, self._at_s = kind, clock, clock()
        self.looked_s = 0.0
        self._seen: dict[str, tuple[float, float]] = {}  # fingerprint -> first and last time, by looked_s
        self._raised: dict[str, AlertFact] = {}

    def note(self, present: Iterable[tuple[AlertFact, float]]) -> None:
        """Note what there is now, each with the seconds after which it is raised.

        Raises:
            BrokerError: an alert could not be raised; the next call retries.
        """
        before_s, at_s = self.looked_s, self._clock()
        if at_s - self._at_s <= CALM_S:
            self.looked_s += at_s - self._at_s
        self._at_s, now_s = at_s, self.looked_s
        for fact, after_s in present:
            first_s, last_s = self._seen.get(fact.fingerprint, (now_s, now_s))
            known = fact.fingerprint in self._raised
            first_s = first_s if known or last_s == before_s or now_s - last_s <= GAP_S else now_s
            self._seen[fact.fingerprint] = first_s, now_s
            if not known and now_s - first_s >= after_s:
                if not (was_open := self.is_open(fact.fingerprint)):
                    facilities().alerts.raise_(fact)
                # How severe another leader has found it is not known here.
                self._raised[fact.fingerprint] = replace(fact, severity="") if was_open else fact
            elif known and fact.severity == "critical" != self._raised[fact.fingerprint].severity:
                with contextlib.suppress(DatabaseError):  # tried again by the next call
                    worsen(fact)
                    self._raised[fact.fingerprint] = fact

    def resolve(self) -> None:
        """Resolve the alerts of what has been gone for 20 s.

        Raises:
            BrokerError, django.db.DatabaseError: the next call resolves the rest.
        """
        if self.looked_s < CALM_S:
            return
        gone = {name for name, (_, last_s) in self._seen.items() if self.looked_s - last_s >= CALM_S}
        for fact in (self._raised[name] for name in gone if name in self._raised):
            if not self.is_open(fact.fingerprint) and facilities().alerts.counts([fact.fingerprint]):
                # It was sent while the database was away.
                write_alert(AlertGroup(fact, 1, 1, fact.at, fact.at, ""), ())
        resolve_gone(self._kind, set(self._seen) - gone)
        for name in gone:
            del self._seen[name]
            self._raised.pop(name, None)

    def has_called(self, fingerprint: str) -> bool:
        """Return whether an alert of a cause was raised, and has not ended."""
        return fingerprint in self._raised

    def is_open(self, fingerprint: str) -> bool:
        """Return whether an alert of a cause is unresolved; also ``False`` while the database does not answer."""
        rows = Alert.objects.filter(kind=self._kind, fingerprint=fingerprint[:128], state__in=UNRESOLVED)
        try:
            return rows.exists()
        except DatabaseError:
            return False


# Warnings that turn into errors if nobody acts.
ALERTED_WARNINGS = frozenset({"nearly_full"})


class BrokerAlerts:
    """Checks of the server, with an alert for each finding."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = make_watch()
        self._lasting = LastingAlerts("broker", clock)

    def check(self) -> None:
        """Check once. Nothing is known of a server that is away.

        Raises:
            BrokerError, django.db.DatabaseError: the next check retries.
        """
        findings = self._watch.look().findings
        if any(found.code == "away" for found in findings):
            return
        self._lasting.note(
            (AlertFact(f"broker-{found.code}", "broker", f"The broker's server: {found.seen}", found.remedy), 0.0)
            for found in findings
            if found.severity == "error" or found.code in ALERTED_WARNINGS
        )
        self._lasting.resolve()


FINGERPRINT: Final = "broker-away"
AFTER_S = 20.0
# Two schedulers that find it at once write one row: a row's fingerprint and first time are unique.
ROUNDED_MS = 60_000


class AwayAlert:
    """Checks of whether the broker answers, which keeps the groups of all other alerts: told without it.

    Every scheduler makes them, as none leads meanwhile; the one that leads once it is back resolves the alert.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch, self._clock = make_watch(), clock
        self._since_s: float | None = None
        self._group: AlertGroup | None = None  # of this absence, once it was told
        self._has_row = False

    def check(self) -> None:
        """Check once.

        Raises:
            django.db.DatabaseError: what was sent without the database has no row yet; the next check retries.
        """
        away = next((found for found in self._watch.look().findings if found.code == "away"), None)
        if away is None:
            if self._group is not None and not self._has_row:
                write_alert(self._group, ())
            self._since_s, self._group, self._has_row = None, None, False
            return
        now_s = self._clock()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s < AFTER_S:
            return
        targets = channels()
        group = self._group or _group(away)
        try:
            if not self._has_row:
                known = Alert.objects.filter(fingerprint=FINGERPRINT, state__in=UNRESOLVED).exists()
                # Channels that accepted it while the database was away as well are not told again.
                if not known:
                    write_alert(group, () if self._group else targets)
                self._group, self._has_row = group, True
            send_due(targets)
        except DatabaseError:
            if self._group is None and send_without_rows(group, targets):
                self._group = group


def _group(away: ServerFinding) -> AlertGroup:
    at = now_ms() // ROUNDED_MS * ROUNDED_MS
    seen = away.seen.partition(";")[0].removeprefix("the server ")
    fact = AlertFact(
        fingerprint=FINGERPRINT, kind="broker", title=f"The broker {seen}: no job can be sent, and none starts", at=at,
        detail=f"{away.remedy}\nPools try again by themselves, and go on with what they run; nothing is lost.",
    )  # fmt: skip
    return AlertGroup(fact, 1, 0, at, at, "")
