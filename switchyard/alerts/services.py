"""Dispatch of due alerts."""

from __future__ import annotations

import threading
import time

from django.db import DatabaseError

from switchyard.alerts.channels import Channel, LogChannel, channels
from switchyard.alerts.intake import notice_of_group, write_alert
from switchyard.alerts.sending import ChannelBatch, send_all, send_due
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertGroup
from switchyard.conf import switchyard_settings
from switchyard.loggers import get_logger

log = get_logger(__name__)

GROUPS_AT_ONCE = 20
LOG_EVERY_S = 60.0
_log_lock = threading.Lock()
_logged_at: dict[str, float] = {}


def dispatch_due() -> int:
    """Claim the due alert groups and send them to every channel; return how many messages were accepted.

    The scheduler calls this function every second. It takes about 10 s if a channel hangs. Safe to run in two
    processes. While the database does not answer, messages are sent without rows.

    The caller renews its database connection between calls.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    targets = channels(switchyard_settings().alert_urls)
    alerts = facilities().alerts
    accepted = 0
    for group in alerts.claim_due(GROUPS_AT_ONCE):
        try:
            written = write_alert(group, [channel.name for channel in targets])
        except DatabaseError as error:
            _log_database_error(error)
            accepted += _send_without_rows(group, targets)
        else:
            alerts.settle(written)
    try:
        return accepted + send_due(targets)
    except DatabaseError as error:
        _log_database_error(error)
        return accepted


def _send_without_rows(group: AlertGroup, targets: tuple[Channel, ...]) -> int:
    notice = notice_of_group(group)
    batches = [ChannelBatch(channel, [notice]) for channel in targets]
    send_all(batches)
    accepted = [batch.channel for batch in batches if batch.results.get(notice.id, True) is None]
    # Without settling, the claim expires and the group is due again: a log line alone has not reached anybody.
    if any(not isinstance(channel, LogChannel) for channel in accepted) or len(accepted) == len(targets):
        facilities().alerts.settle(group)
    return len(accepted)


def _log_database_error(error: DatabaseError) -> None:
    name, now = type(error).__name__, time.monotonic()
    with _log_lock:
        if now - _logged_at.get(name, -LOG_EVERY_S) < LOG_EVERY_S:
            return
        _logged_at[name] = now
    log.error("alerts are sent without rows: the database does not answer", error=name)
