"""Sends what is due, every channel for itself: one that hangs or fails never holds up the others."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from django.db.models import F
from django.utils import timezone

from apps.platform.alerts.channels import Channel
from apps.platform.alerts.errors import ChannelFailed
from apps.platform.alerts.intake import notice
from apps.platform.alerts.models import Delivery
from apps.platform.alerts.notice import Notice

log = structlog.get_logger(__name__)

MOST_TRIES = 5
BACKOFF_S = (5, 15, 45, 90)
BATCH = 50
# A channel starts no further message after this many seconds of a batch, and the batch ends a deadline later.
BUDGET_S = 4.0
BATCH_ENDS_S = 10.0
CLAIM_S = 60


@dataclass(slots=True)
class Attempts:
    """What one channel did with its notices in one batch. ``results``: id -> failure, ``None`` for taken."""

    channel: Channel
    notices: Sequence[Notice]
    results: dict[str, ChannelFailed | None] = field(default_factory=dict)

    def run(self) -> None:
        """Send the notices in order until one meets a channel that does not answer, or the budget is spent."""
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
            except Exception as error:  # noqa: BLE001  a broken channel must not end the others' batch
                results[item.id] = ChannelFailed(self.channel.name, f"{type(error).__name__} in the channel")
                return
            else:
                results[item.id] = None


def send_all(work: Sequence[Attempts]) -> None:
    """Run channels side by side for at most ``BATCH_ENDS_S``. What has no answer by then counts as failed."""
    threads = [threading.Thread(target=item.run, name=f"alerts {item.channel.name}", daemon=True) for item in work]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + BATCH_ENDS_S
    for thread, item in zip(threads, work, strict=True):
        thread.join(max(0.0, ends - time.monotonic()))
        # A thread that goes on writes into the old dict: what counts is how it stood now.
        item.results = dict(item.results)
        waiting = next((one.id for one in item.notices if one.id not in item.results), None)
        if thread.is_alive() and waiting is not None:
            item.results[waiting] = ChannelFailed(item.channel.name, f"no answer in {BATCH_ENDS_S:.0f} s")


def send_due(channels: Sequence[Channel]) -> int:
    """Send the messages that are due, and note how it went; return how many were taken.

    Raises:
        django.db.DatabaseError: rows could not be read or written; what was sent meanwhile may be sent again.
    """
    by_name = {channel.name: channel for channel in channels}
    claimed: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in _claim_due(list(by_name)):
        claimed[delivery.channel].append(delivery)
    work = [Attempts(by_name[name], [notice(item) for item in items]) for name, items in claimed.items()]
    send_all(work)
    return sum(_note_results(attempts, claimed[attempts.channel.name]) for attempts in work)


def _claim_due(names: Sequence[str]) -> list[Delivery]:
    now = timezone.now()
    pending = Delivery.objects.filter(state=Delivery.State.PENDING, next_try_at__lte=now)
    gone = pending.exclude(channel__in=names)
    gone.update(state=Delivery.State.GIVEN_UP, error="the channel is no longer configured")
    claimed = []
    for delivery in pending.filter(channel__in=names).select_related("alert")[:BATCH]:
        # Another scheduler may do the same: whoever moves next_try_at sends. A crash makes it due again.
        mine = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.PENDING, next_try_at=delivery.next_try_at)
        if mine.update(next_try_at=now + timedelta(seconds=CLAIM_S), tries=F("tries") + 1):
            delivery.tries += 1
            claimed.append(delivery)
    return claimed


def _note_results(attempts: Attempts, deliveries: Sequence[Delivery]) -> int:
    failures = [result for result in attempts.results.values() if result is not None]
    absent = next((failure for failure in failures if not failure.answered), None)
    taken = 0
    for delivery, item in zip(deliveries, attempts.notices, strict=True):
        now = timezone.now()
        if item.id in attempts.results and attempts.results[item.id] is None:
            delivery.state, delivery.sent_at, delivery.error = Delivery.State.SENT, now, ""
            taken += 1
        elif failure := attempts.results.get(item.id) or absent:
            _note_failure(delivery, failure)
        else:
            delivery.tries, delivery.next_try_at = delivery.tries - 1, now
        delivery.save(update_fields=("state", "sent_at", "error", "tries", "next_try_at"))
    return taken


def _note_failure(delivery: Delivery, failure: ChannelFailed) -> None:
    delivery.error = failure.fact[:300]
    if delivery.tries >= MOST_TRIES:
        delivery.state = Delivery.State.GIVEN_UP
        log.error(
            "alert given up", channel=delivery.channel, alert=delivery.alert_id, tries=delivery.tries, why=failure.fact
        )
        return
    delivery.next_try_at = timezone.now() + timedelta(seconds=BACKOFF_S[delivery.tries - 1])
    log.warning(
        "alert not sent", channel=delivery.channel, alert=delivery.alert_id, tries=delivery.tries, why=failure.fact
    )
