"""What the rest of the project may do with alerts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.platform.alerts.channels import Channel
from apps.platform.alerts.channels.log import LogChannel
from apps.platform.alerts.channels.parse import channels
from apps.platform.alerts.intake import notice_without_row, take_over
from apps.platform.alerts.models import Alert
from apps.platform.alerts.sending import Attempts, send_all, send_due
from apps.platform.conf import switchyard_settings
from broker.interface import facilities
from broker.stores.alert_groups import AlertGroup

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)

GROUPS_AT_ONCE = 20
COMPLAIN_EVERY_S = 60.0
_complaint_lock = threading.Lock()
_complained_at: dict[str, float] = {}


def dispatch_due() -> int:
    """Claim the alert groups that are due and send them to every channel; return how many messages were taken.

    The scheduler calls this each second. It takes at most about ten seconds, when a channel hangs. Safe to run in
    two processes. A database that does not answer only costs the rows: the messages go out without them.

    The caller renews its database connection between calls.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    targets = channels(switchyard_settings().alert_urls)
    alerts = facilities().alerts
    taken = 0
    for group in alerts.claim_due(GROUPS_AT_ONCE):
        try:
            written = take_over(group, [channel.name for channel in targets])
        except DatabaseError as error:
            _complain(error)
            taken += _send_without_rows(group, targets)
        else:
            alerts.settle(written)
    try:
        return taken + send_due(targets)
    except DatabaseError as error:
        _complain(error)
        return taken


def acknowledge(alert: Alert, *, by: User) -> bool:
    """Note that somebody looks after an alert; ``False`` when somebody did before."""
    with transaction.atomic():
        row = Alert.objects.select_for_update().get(pk=alert.pk)
        if row.state == Alert.State.ACKNOWLEDGED:
            return False
        row.state, row.acknowledged_by, row.acknowledged_at = (
            Alert.State.ACKNOWLEDGED,
            by.get_username(),
            timezone.now(),
        )
        row.save(update_fields=("state", "acknowledged_by", "acknowledged_at"))
        LogEntry.objects.create(
            user=by,
            content_type=ContentType.objects.get_for_model(Alert),
            object_id=str(row.pk),
            object_repr=str(row)[:200],
            action_flag=CHANGE,
            change_message="Acknowledged",
        )
    return True


def _send_without_rows(group: AlertGroup, targets: tuple[Channel, ...]) -> int:
    told = notice_without_row(group)
    work = [Attempts(channel, [told]) for channel in targets]
    send_all(work)
    taken = [attempts.channel for attempts in work if attempts.results.get(told.id, True) is None]
    # Not settled, the claim lapses and the group is due again: the log alone is nobody who was told.
    if any(not isinstance(channel, LogChannel) for channel in taken) or len(taken) == len(targets):
        facilities().alerts.settle(group)
    return len(taken)


def _complain(error: DatabaseError) -> None:
    name, now = type(error).__name__, time.monotonic()
    with _complaint_lock:
        if now - _complained_at.get(name, -COMPLAIN_EVERY_S) < COMPLAIN_EVERY_S:
            return
        _complained_at[name] = now
    log.error("alerts go out without rows: the database does not answer", error=name)
