"""Rendered files: the same every time, and compared with what is on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from switchyard.deployment import rendered_files
from tests.unit.deployment.yards import YARD


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
def test_files_on_disk_are_what_the_yard_renders(target: str) -> None:
    rendered = rendered_files.render(target, settings.SWITCHYARD.topology)

    assert rendered_files.differences(settings.BASE_DIR, rendered) == []


def test_every_file_says_where_it_comes_from_and_is_yaml() -> None:
    for text in rendered_files.render("compose", YARD).values():
        assert text.startswith("# Rendered by `manage.py switchyard topology render compose`")
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("target", ["compose", "kubernetes", "systemd"])
def test_every_process_starts_by_the_manage_py_of_any_project(target: str) -> None:
    """Only this repository's own takes a command of ours without the word ``switchyard`` before it."""
    lines = "\n".join(rendered_files.render(target, YARD).values()).replace(",", "").replace('"', "").splitlines()
    started = [words for line in lines if not line.startswith("#") and (words := re.findall(r"manage\.py (\w+)", line))]

    assert len(started) > 3
    assert {word for words in started for word in words} <= {"switchyard", "migrate"}


def test_every_container_of_a_pool_is_scraped_by_the_name_of_its_service() -> None:
    jobs = yaml.safe_load(rendered_files.render("compose", YARD)["ops/prometheus/prometheus.yml"])["scrape_configs"]

    assert [job["job_name"] for job in jobs] == ["web", "pool-vans", "pool-spare"]
    assert jobs[1]["dns_sd_configs"] == [{"names": ["pool-vans"], "type": "A", "port": 9191}]


def test_drift_is_shown_as_a_diff_from_disk_to_the_yard(tmp_path: Path) -> None:
    rendered_files.write(tmp_path, {"ops/a.yml": "a: 1\n"})

    lines = rendered_files.differences(tmp_path, {"ops/a.yml": "a: 2\n", "ops/new.yml": "n: 1\n"})

    assert "-a: 1" in lines
    assert "+a: 2" in lines
    assert "+n: 1" in lines


GROUPS = yaml.safe_load((settings.BASE_DIR / "ops/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_says_its_cause_and_the_next_step(alert: dict[str, Any]) -> None:
    severity = alert["labels"]["severity"]

    assert severity in ("page", "ticket") or "switchyard_queue_objective_seconds" in severity
    assert alert["labels"]["where"] in ("queue", "workers", "tasks")
    assert all(alert["annotations"][part] for part in ("summary", "cause", "next_step", "runbook"))


def test_no_rule_names_a_queue_or_a_pool_and_idle_slots_are_asked_for_their_reason_before_a_restart() -> None:
    expressions = " ".join(rule["expr"] for group in GROUPS for rule in group["rules"])
    [told] = [alert["annotations"]["next_step"] for alert in ALERTS if alert["alert"] == "SwitchyardNothingDispatches"]

    assert 'queue="' not in expressions and 'pool="' not in expressions
    # A person may have quieted the pool, which a restart would undo.
    assert told.startswith("`manage.py switchyard workers` says why: quieted")
    assert "restart" not in told
