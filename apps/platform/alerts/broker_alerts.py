"""Alerts about the broker's server, raised by the leading scheduler once for each finding until it is gone."""

from __future__ import annotations

from apps.platform.workers.broker_watch import make_watch
from broker.clock import now_ms
from broker.health.server import ServerFinding
from broker.interface import facilities
from broker.stores.alert_groups import AlertFact

# Warnings that turn into errors if nobody acts.
ALERTED_WARNINGS = frozenset({"nearly_full"})


class BrokerAlerts:
    """Checks of the server, with an alert for each new finding."""

    def __init__(self) -> None:
        self._watch = make_watch()
        self._raised: set[str] = set()

    def check(self) -> None:
        """Check once.

        Raises:
            BrokerError: an alert could not be raised; the next check retries.
        """
        findings = self._watch.look().findings
        self._raised &= {found.code for found in findings}
        for found in findings:
            if found.code not in self._raised and (found.severity == "error" or found.code in ALERTED_WARNINGS):
                facilities().alerts.raise_(_fact(found))
                self._raised.add(found.code)


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
