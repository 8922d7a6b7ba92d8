"""Alert that the broker does not answer, which keeps the groups of all others: written and sent without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from django.db import DatabaseError

from switchyard.alerts.channels import channels
from switchyard.alerts.intake import write_alert
from switchyard.alerts.models import Alert
from switchyard.alerts.sending import send_due, send_without_rows
from switchyard.alerts.silences import UNRESOLVED
from switchyard.broker.clock import now_ms
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroup
from switchyard.workers.preflight import make_watch

FINGERPRINT: Final = "broker-away"
AFTER_S = 20.0
# Two schedulers that find it at once write one row: a row's fingerprint and first time are unique.
ROUNDED_MS = 60_000


class AwayAlert:
    """Checks of whether the broker answers, by every scheduler: none leads while it does not.

    The alert is resolved like any other about the broker, by the scheduler that leads once it is back.
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
