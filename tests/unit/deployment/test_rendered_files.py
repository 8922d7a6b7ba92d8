"""Rendered files are those on disk; systemd has nothing to say of its units, nor have the linters of workflows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import memory_mib, render, write
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.unit.deployment.yards import VANS, YARD

ROOT = settings.BASE_DIR
FILES = [*sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / "ops/github/deploy.yml"]
CHECKS = (
    ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    ("actionlint", "-shellcheck=", "-pyflakes="),
    ("zizmor", "--offline", "--quiet", "--no-progress"),
)
UNITS = render("systemd", YARD)
# Systemd wants programs and folders that exist.
HERE = {"root": str(settings.BASE_DIR), "python": sys.executable, "user": "root"}
MOST_EXPOSED = 25  # tenths of systemd's score, from 0 for a unit that may do nothing to 100


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


@pytest.mark.parametrize("command", CHECKS, ids=lambda command: command[0])
def test_workflows_are_well(command: tuple[str, ...]) -> None:
    done = subprocess.run([*command, *map(str, FILES)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_roll_of_a_host_project_checks_migrates_rolls_verifies_and_goes_back_where_that_fails() -> None:
    jobs = yaml.safe_load((ROOT / "ops/github/deploy.yml").read_text())["jobs"]
    steps = [step for step in jobs["roll"]["steps"] if "name" in step]

    assert [jobs[name].get("needs") for name in ("test", "build", "roll")] == [None, "test", "build"]
    names = ["Check the backlog with the new code", "Migrate", "Roll", "Verify", "Roll back"]
    assert [step["name"] for step in steps][1:] == names
    assert steps[-1]["if"] == "failure()"
    # The wait for a job's success outlasts a job that failed, which has another condition.
    page = (ROOT / "docs/how-to/deploy-on-kubernetes.md").read_text()
    for script in (*(step.get("run", "") for step in steps), page):
        waits = [line for line in script.splitlines() if "kubectl" in line and " wait " in line]
        kinds = ["{.status.conditions[0].status}'=True" in line for line in waits]
        assert kinds == [True, False] * (len(waits) // 2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step_of_a_workflow_is_a_shell_script_that_bash_reads(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]

    errors = [subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True).stderr for script in scripts]
    assert [error for error in errors if error] == []


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``. It exits with 0 on a key that it does not know, but says so."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def written(folder: Path) -> list[str]:
    write(folder, render("systemd", YARD, values=HERE))
    return sorted(map(str, (folder / "ops/systemd").iterdir()))


def test_every_process_has_a_unit_that_its_target_starts() -> None:
    names = ["web", "scheduler", "history", *(f"pool-{pool.name}" for pool in YARD.pools)]
    [target] = (text for path, text in UNITS.items() if path.endswith("switchyard.target"))
    [wanted] = (line.removeprefix("Wants=").split() for line in target.splitlines() if line.startswith("Wants="))

    assert wanted == [f"switchyard-{name}.service" for name in names]
    assert {f"ops/systemd/{name}" for name in (*wanted, "switchyard.target")} == set(UNITS)


def test_pool_has_its_memory_and_is_killed_after_its_drain_alone() -> None:
    unit = dict(
        line.split("=", 1) for line in UNITS["ops/systemd/switchyard-pool-vans.service"].splitlines() if "=" in line
    )

    assert unit["ExecStart"].endswith("manage.py switchyard runpool vans --metrics-port 9191")
    assert int(unit["TimeoutStopSec"]) > GRACE_S + KILL_AFTER_GRACE_S
    assert (unit["KillMode"], unit["RestartPreventExitStatus"]) == ("mixed", "78")
    assert unit["MemoryMax"] == f"{memory_mib(VANS)}M"


def test_systemd_has_nothing_to_say_of_any_unit(tmp_path: Path) -> None:
    done = analyze("verify", *written(tmp_path))

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_units_may_do_little(tmp_path: Path) -> None:
    units = [path for path in written(tmp_path) if path.endswith(".service")]

    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", *units)

    assert done.returncode == 0, done.stdout
