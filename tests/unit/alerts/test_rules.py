"""Rules of the yard choose when and where alerts go; one that cannot be used is refused with what to write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.test import override_settings

from switchyard.alerts.checks import check_alert_urls
from switchyard.alerts.intake import chosen, further
from switchyard.alerts.notice import is_quiet
from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.broker.topology import AlertRule, Yard
from switchyard.conf import declared_yard
from switchyard.operations.alerting import after_s, fact_of
from switchyard.operations.checks import check_rule_names
from switchyard.operations.findings.finding import Finding, ranked
from tests.unit.alerts.configuration import with_alert_urls

NOW = datetime(2026, 11, 27, 22, 30, tzinfo=UTC)
LATE = AlertFact("finding-queues.late", "finding", "late", "", "", "", 0)


def with_rules(*rules: AlertRule, urls: tuple[str, ...] = ("log:",), quiet: tuple[str, str] | None = None) -> Any:
    return with_alert_urls(*urls, topology=replace(declared_yard(), alerts=rules, quiet_hours=quiet))


@pytest.mark.parametrize(
    ("fact", "name"),
    [
        (LATE, "queues.late"),
        (msgspec.structs.replace(LATE, kind="broker", fingerprint="broker-nearly_full"), "broker.nearly_full"),
        (msgspec.structs.replace(LATE, kind="dead_letter", fingerprint="f00dfacef00dface"), "dead_letter"),
    ],
)
def test_an_alert_has_the_name_of_its_finding(fact: AlertFact, name: str) -> None:
    assert fact.name == name


def test_the_first_rule_that_matches_chooses_the_channels_and_those_beyond() -> None:
    names = ["team", "oncall", "boss"]
    late = AlertRule("queues.late", channels=("team",), escalate_after_s=600, escalate_to=("oncall", "gone"))
    with with_rules(late, AlertRule("*", channels=("boss",))):
        assert chosen(LATE, names) == ["team"]
        assert further(LATE, names, NOW) == [("oncall", NOW + timedelta(minutes=10))]
        other = msgspec.structs.replace(LATE, fingerprint="finding-pools.down")
        assert (chosen(other, names), further(other, names, NOW)) == (["boss"], [])
        assert chosen(other, ["mail"]) == ["mail"]  # nobody is forgotten for a label that is gone
    with with_rules():
        assert (chosen(LATE, names), further(LATE, names, NOW)) == (names, [])


@override_settings(TIME_ZONE="UTC")
def test_quiet_hours_may_go_over_midnight() -> None:
    found = {}
    for quiet in (("22:00", "07:00"), ("09:00", "23:00"), ("09:00", "10:00"), None):
        with with_rules(quiet=quiet):
            found[quiet] = [is_quiet(NOW + timedelta(hours=hours)) for hours in (0, 5, 9)]

    assert [*found.values()] == [[True, True, False], [True, False, False], [False] * 3, [False] * 3]


def test_a_rule_says_after_which_time_a_person_is_called() -> None:
    [late] = ranked([Finding("queues", "late", "error", "default is late", "", "", "default")])
    assert after_s(late) == 30.0
    with with_rules(AlertRule("queues.*", after_s=300)):
        assert after_s(late) == 300
    with with_rules(AlertRule("queues.*", channels=("team",))):
        assert after_s(late) == 30.0


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        *(({"finding": ""}, "finding"), ({"after_s": -1}, "after_s"), ({"channels": "oncall"}, "channels")),
        *(({"escalate_to": ("oncall",)}, "escalate_to"), ({"escalate_after_s": 60}, "escalate_to")),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(wrong: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidDeclaration, match=option):
        AlertRule(**{"finding": "queues.late", **wrong})


@pytest.mark.parametrize("hours", [("22:00",), ("22:00", "22:00"), ("22", "7"), "22:00", ("25:00", "07:00")])
def test_quiet_hours_that_cannot_be_used_are_refused(hours: Any) -> None:
    with pytest.raises(InvalidDeclaration, match="quiet_hours"):
        Yard((), (), quiet_hours=hours)


def test_a_rule_for_a_finding_or_a_label_that_there_is_not_is_an_error() -> None:
    rules = AlertRule("queues.lat", channels=("oncal",)), AlertRule("dead_letter"), AlertRule("history.*")
    with with_rules(*rules, urls=("oncall=log:",)):
        names, labels = check_rule_names(None), check_alert_urls(None)
    with with_rules(*rules, urls=()):
        without = check_alert_urls(None)

    assert [(error.id, error.msg) for error in names] == [
        ("switchyard.E043", "alert rule of queues.lat: no finding has this name")
    ]
    assert "Did you mean 'queues.late'?" in str(names[0].hint)
    assert [error.msg for error in labels] == [
        "alert rule of queues.lat: no entry of SWITCHYARD_ALERT_URLS has the label 'oncal'"
    ]
    assert "They are oncall" in str(labels[0].hint) and without == []


@pytest.mark.parametrize(("severity", "seconds", "called"), [("warning", 60.0, "warning"), ("error", 30.0, "critical")])
def test_late_often_waits_for_a_minute_and_for_the_end_of_quiet_hours_unless_it_is_bad(
    severity: Any, seconds: float, called: str
) -> None:
    [often] = ranked([Finding("queues", "burning", severity, "x", "y", "z", "default")])

    assert (after_s(often), fact_of([often]).severity) == (seconds, called)
