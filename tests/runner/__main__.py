"""``bin/test`` behind its preparations: checks beside tests, then the totals."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tests.runner.arguments import parse
from tests.runner.lanes import LANES, Lanes, Run, row
from tests.runner.plan import Plan

ROOT = Path.cwd()
LOGS = Path("var/test-logs")
# Of the caller; the checks and tests run on development defaults.
# Without bytecode pytest rewrites the assertions of all test modules in every run: a minute of processor time.
SETTINGS = re.compile(
    r"(SWITCHYARD|DJANGO)_.*|DATABASE_(URL|BOUNCED|DIRECT_URL)|PROMETHEUS_MULTIPROC_DIR|PYTHONDONTWRITEBYTECODE"
)
# Once, before all processes of the tests find the project new and compile it beside each other.
BYTECODE = r"python -m compileall -q -j 0 -x (/\.|/var/|/test_[^/]*\.py$) ."
QUICK = {"ruff": "ruff check .", "format": "ruff format --check .", "mypy": "mypy .", "layers": "lint-imports"}
CHECKS = QUICK | {
    "migrations": "python manage.py makemigrations --check --dry-run",
    "system-checks": "python manage.py check",
    "topology": "python manage.py switchyard topology render compose --check",
    "kubernetes": "python manage.py switchyard topology render kubernetes --check",
    "systemd": "python manage.py switchyard topology render systemd --check",
    "acl": "python manage.py switchyard topology render acl --check",
    "dockerfile": "hadolint ops/Dockerfile",
    "compose": "check-jsonschema --builtin-schema vendor.compose-spec ops/compose.yaml",
}
WITH_PROMTOOL = {
    "alert-rules": "promtool check rules ops/prometheus/rules.yml",
    "alert-tests": "promtool test rules ops/prometheus/rules.test.yml ops/prometheus/rules.day.test.yml",
    "scrape-config": "promtool check config --syntax-only ops/prometheus/prometheus.yml",
    "dashboard": "python ops/grafana/check.py ops/grafana/dashboard.json",
}


class Steps:
    """Checks that are no tests.

    Args:
        without: Names of steps that are left out.
        environment: Of each step.
    """

    def __init__(self, without: list[str], environment: dict[str, str]) -> None:
        self.failed: dict[str, int] = {}
        self._without, self._environment = without, environment

    def run(self, commands: dict[str, str]) -> None:
        """Run each, print its row, and its output where it failed."""
        for name, command in commands.items():
            started = time.monotonic()
            if name in self._without or ("promtool" in self._without and name in WITH_PROMTOOL):
                row("left out", name, started)
                continue
            done = subprocess.run(
                command.split(), env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            row("FAILED" if done.returncode else "ok", name, started)
            if done.returncode:
                print(done.stdout, flush=True)
                self.failed[name] = done.returncode


def main() -> int:
    """Run what the arguments ask for, and return the exit code."""
    options = parse()
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not SETTINGS.fullmatch(name)}
    environment["TEST_WITHOUT"] = " ".join(options.without)
    lanes = Lanes(ROOT, LOGS.resolve(), environment)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            steps = Steps(options.without, environment | {"SWITCHYARD_STATE_DIR": f"{scratch}/state"})
            _run_all(options, lanes, steps)
    except BaseException:
        lanes.stop()
        raise
    names = [*os.environ.get("TEST_MISSING", "").split(), *steps.failed]
    if names:
        print("failed:", *names)
    tests_are_well = "pytest" in options.without or lanes.print_totals()
    return next(iter(steps.failed.values()), int(bool(names) or not tests_are_well))


def _run_all(options: Namespace, lanes: Lanes, steps: Steps) -> None:
    steps.run({"bytecode": BYTECODE})
    plan = Plan(options, ROOT)
    if "pytest" in options.without:
        steps.run(CHECKS | WITH_PROMTOOL)
    elif options.part:
        for name in options.part:
            _run(plan.named(name), lanes, steps, {})
    else:
        _run(plan.beside_each_other(), lanes, steps, QUICK if options.quick else CHECKS | WITH_PROMTOOL)
    lanes.run_failed_again()


def _run(runs: list[Run], lanes: Lanes, steps: Steps, chosen: dict[str, str]) -> None:
    if len(runs) == 1:
        steps.run(chosen)
        lanes.run(replace(runs[0], live=True))
        return
    print(f"running {len(runs)} parts of the tests, {LANES} at a time; each is printed when it ends", flush=True)
    started = lanes.start(runs)
    steps.run(chosen)
    for future in started:
        future.result()


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
