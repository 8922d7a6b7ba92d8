"""Workflows of this repository and for a host project: their form, their expressions, and what is unsafe in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from django.conf import settings

ROOT = settings.BASE_DIR
FILES = [*sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / "ops/github/deploy.yml"]
CHECKS = (
    ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    ("actionlint", "-shellcheck=", "-pyflakes="),
    ("zizmor", "--offline", "--quiet", "--no-progress"),
)


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
