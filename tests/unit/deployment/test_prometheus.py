"""Alert rules: what is made for a yard. Whether they fire when they should is `promtool test rules`'s to say."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from switchyard.deployment import prometheus
from tests.unit.deployment.yards import YARD


def by_name(group: str) -> dict[str, Any]:
    groups = {entry["name"]: entry["rules"] for entry in prometheus.rules(YARD)["groups"]}
    return {rule["alert"]: rule for rule in groups[group]}


def test_objective_of_a_queue_is_the_threshold_of_its_alert() -> None:
    late = by_name("queue parcels")["SwitchyardQueueLate"]

    assert late["expr"].splitlines()[0] == 'max(switchyard_queue_oldest_age_seconds{queue="parcels"}) > 2.5'
    assert late["for"] == "30s"


def test_queue_that_promises_nothing_is_never_late_but_may_be_too_deep() -> None:
    rules = by_name("queue letters")

    assert "SwitchyardQueueLate" not in rules
    assert rules["SwitchyardQueueDeep"]["labels"]["severity"] == "ticket"


def test_attempts_in_the_retry_lane_count_for_the_queue() -> None:
    failing = by_name("queue parcels")["SwitchyardFailureRate"]

    assert 'queue=~"parcels|parcels-retry"' in failing["expr"]


def test_every_pool_has_its_group() -> None:
    assert set(by_name("pool vans")) == {"SwitchyardPoolDown", "SwitchyardPoolCrashing", "SwitchyardPoolMemory"}


@pytest.mark.parametrize(
    "group", prometheus.rules(settings.SWITCHYARD.topology)["groups"], ids=lambda group: group["name"]
)
def test_alert_says_its_cause_and_the_next_step(group: dict[str, Any]) -> None:
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["labels"]["where"] in ("queue", "workers", "tasks")
        assert all(rule["annotations"][part] for part in ("summary", "cause", "next_step"))
