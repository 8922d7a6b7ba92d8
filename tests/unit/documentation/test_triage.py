"""The steps from an alert to its cause: every label, rule and kind of alert leads to a heading that exists."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.urls import reverse

from switchyard.console import links as console_runbook
from switchyard.console.links import BY_KIND, PAGE, runbook, runbook_of_alert
from switchyard.operations.findings.finding import PRECEDENCE
from switchyard.operations.findings.lateness import LATE_WORDS
from switchyard.operations.findings.spending import DATABASE_SLOW, DEPENDENCY_SLOW
from tests.unit.documentation.pages import read
from tests.unit.documentation.test_reference import parser_of

TEXT = read(PAGE)
HEADINGS = re.findall(r"^#{2,3} (.+)$", TEXT, flags=re.MULTILINE)
ANCHORS = {heading.lower().replace(" ", "-") for heading in HEADINGS}
LABELS = sorted({*(rank.label for rank in PRECEDENCE), *LATE_WORDS, DATABASE_SLOW, DEPENDENCY_SLOW})
GROUPS = yaml.safe_load(read("ops/prometheus/rules.yml"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
TABLES = TEXT.split("## The server")[0]


STEPS = reverse("switchyard-steps")
WEB = f"{settings.SWITCHYARD.public_url}{STEPS}"


def anchor_of(address: str) -> str:
    page, _, anchor = address.partition("#")
    assert page in (STEPS, WEB)
    return anchor


@pytest.mark.parametrize("label", LABELS)
def test_every_label_of_a_verdict_has_its_steps_and_a_link(label: str) -> None:
    anchor = anchor_of(runbook(label))

    assert anchor in ANCHORS
    assert f"[{label}](#{anchor})" in TABLES


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_rule_leads_to_its_steps_and_has_a_row(alert: dict[str, Any]) -> None:
    # Prometheus puts the web's own address before it, and this one while it does not know that.
    anchor = anchor_of(re.sub(r"\{\{ with .* else \}\}|\{\{ end \}\}", "", alert["annotations"]["runbook"]))

    assert anchor in ANCHORS
    assert re.search(rf"^\| `{alert['alert']}` \| \[[^]]+\]\(#{anchor}\)", TABLES, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_alert_leads_to_its_steps(kind: str) -> None:
    assert anchor_of(runbook_of_alert(kind)) in ANCHORS
    assert runbook_of_alert("of another release") == WEB


def test_a_project_without_the_page_of_steps_is_told_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_runbook, "steps_url", lambda heading: "")

    assert runbook("No pool") == f"{PAGE}#no-pool"


@pytest.mark.parametrize("line", sorted(set(re.findall(r"manage\.py (?:switchyard )?([^`]+)`", TEXT))))
def test_every_command_of_the_page_is_one_that_its_parser_takes(line: str) -> None:
    values = {"POOL": "default", "QUEUE": "default", "OTHER": "slow", "ID": "12", "…": "why", "owner=NAME": "owner=a"}
    command, *arguments = (values.get(word, word) for word in shlex.split(line))

    parser_of(command).parse_args(arguments)  # a wrong one raises CommandError
