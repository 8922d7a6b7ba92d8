"""Alert rules as they are shipped. Whether they fire when they should is `promtool test rules`'s to say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from django.conf import settings

GROUPS = yaml.safe_load((settings.BASE_DIR / "ops/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_says_its_cause_and_the_next_step(alert: dict[str, Any]) -> None:
    severity = alert["labels"]["severity"]

    assert severity in ("page", "ticket") or "switchyard_queue_objective_seconds" in severity
    assert alert["labels"]["where"] in ("queue", "workers", "tasks")
    assert all(alert["annotations"][part] for part in ("summary", "cause", "next_step", "runbook"))


def test_no_rule_names_a_queue_or_a_pool_of_a_yard() -> None:
    expressions = " ".join(rule["expr"] for group in GROUPS for rule in group["rules"])

    assert 'queue="' not in expressions and 'pool="' not in expressions


def test_idle_slots_are_asked_for_their_reason_before_a_restart() -> None:
    """A person may have quieted the pool, which a restart would undo."""
    [told] = [alert["annotations"]["next_step"] for alert in ALERTS if alert["alert"] == "SwitchyardNothingDispatches"]

    assert told.startswith("`manage.py switchyard workers` says why: quieted")
    assert "restart" not in told
