"""Alerts about the broker's server, raised by the leading scheduler once for each finding until it is gone."""

from __future__ import annotations

from switchyard.alerts.resolution import resolve_broker
from switchyard.broker.clock import now_ms
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.workers.broker_watch import make_watch

# Warnings that turn into errors if nobody acts.
ALERTED_WARNINGS = frozenset({"nearly_full"})


class BrokerAlerts:
    """Checks of the server, with an alert for each new finding."""

    def __init__(self) -> None:
        self._watch = make_watch()
        self._raised: set[str] = set()

    def check(self) -> frozenset[str]:
        """Check once, and return the codes of the findings.

        Raises:
            BrokerError: an alert could not be raised; the next check retries.
        """
        findings = self._watch.look().findings
        self._raised &= {found.code for found in findings}
        for found in findings:
            if found.code not in self._raised and (found.severity == "error" or found.code in ALERTED_WARNINGS):
                facilities().alerts.raise_(_fact(found))
                self._raised.add(found.code)
        return frozenset(found.code for found in findings)

    def check_and_resolve(self) -> None:
        """Check once, and resolve the alerts of findings that are gone; nothing is known of a server that is away.

        Raises:
            BrokerError, django.db.DatabaseError: the next check retries.
        """
        codes = self.check()
        if "away" not in codes:
            resolve_broker(codes)


def _fact(found: ServerFinding) -> AlertFact:
    return AlertFact(
        fingerprint=f"broker-{found.code}",
        kind="broker",
        title=f"The broker's server: {found.seen}",
        detail=found.remedy,
        queue="",
        actor="",
        at=now_ms(),
    )
