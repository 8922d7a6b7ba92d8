"""Alerts about what lasts: raised once it has lasted for a while, resolved once it is gone; those about the broker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final

from django.db import DatabaseError
from msgspec.structs import replace

from switchyard.alerts.channels import channels
from switchyard.alerts.intake import worsen, write_alert
from switchyard.alerts.models import Alert
from switchyard.alerts.resolution import resolve_gone
from switchyard.alerts.sending import send_due, send_without_rows
from switchyard.alerts.silences import UNRESOLVED
from switchyard.broker.clock import now_ms
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroup
from switchyard.workers.preflight import make_watch

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
