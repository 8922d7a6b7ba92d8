"""Where alerts go, and when: the yard's rules and its quiet hours."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.utils import timezone

from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.conf import declared_yard


def chosen(fact: AlertFact, names: Collection[str]) -> list[str]:
    """Return the channels that a rule names for an alert; all where it names none that there is."""
    rule = declared_yard().alert_rule(fact.name)
    return [name for name in names if rule is not None and name in rule.channels] or list(names)


def further(fact: AlertFact, names: Collection[str], now: datetime) -> list[tuple[str, datetime]]:
    """Return the channels to which an alert goes unless it is acknowledged by then, each with that time."""
    rule = declared_yard().alert_rule(fact.name)
    if rule is None or rule.escalate_after_s is None:
        return []
    at, told = now + timedelta(seconds=rule.escalate_after_s), chosen(fact, names)
    return [(name, at) for name in names if name in rule.escalate_to and name not in told]


def is_quiet(now: datetime) -> bool:
    """Return whether it is one of the quiet hours, in which only what is critical is sent."""
    hours, clock = declared_yard().quiet_hours, f"{timezone.localtime(now):%H:%M}"
    if hours is None:
        return False
    begins, ends = hours
    return begins <= clock < ends if begins < ends else clock >= begins or clock < ends
