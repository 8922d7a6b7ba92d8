"""Alerts about the broker's server itself, raised by the leading scheduler: each finding once, while it lasts."""

from __future__ import annotations

from apps.platform.workers.broker_watch import make_watch
from broker.clock import now_ms
from broker.health.server import Finding
from broker.interface import facilities
from broker.stores.alert_groups import AlertFact

# Of the warnings, the one that becomes an error by itself.
ALERTED_WARNINGS = frozenset({"nearly_full"})


class BrokerAlerts:
    """Looks at the server, and raises an alert for what it finds anew."""

    def __init__(self) -> None:
        self._watch = make_watch()
        self._told: set[str] = set()

    def check(self) -> None:
        """Look once.

        Raises:
            redis.RedisError: an alert could not be raised; it is tried again at the next look.
        """
        findings = self._watch.look().findings
        self._told &= {found.code for found in findings}
        for found in findings:
            if found.code not in self._told and (found.severity == "error" or found.code in ALERTED_WARNINGS):
                facilities().alerts.raise_(_fact(found))
                self._told.add(found.code)


def _fact(found: Finding) -> AlertFact:
    return AlertFact(
        fingerprint=f"broker-{found.code}",
        kind="broker",
        title=f"The broker's server: {found.seen}",
        detail=found.remedy,
        queue="",
        actor="",
        at=now_ms(),
    )
