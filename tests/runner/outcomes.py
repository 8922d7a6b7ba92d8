"""Outcome of each test: a pytest plugin writes it, a line of JSON for each test and one for the end of the run."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the name of the file."""
    parser.addoption("--outcomes", type=Path, required=True, help="write what became of each test to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Write from now on."""
    config.pluginmanager.register(_Writer(config.getoption("outcomes")))


class _Writer:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._file.unlink(missing_ok=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write("failed", report.nodeid, exact=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
            self._write(report.outcome, report.nodeid, exact="exact" in report.keywords, reason=reason)

    def pytest_sessionfinish(self) -> None:
        self._write("ended", "", exact=True)

    def _write(self, outcome: str, test: str, *, exact: bool, reason: str = "") -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([outcome, test, exact, reason.removeprefix("Skipped: ")]) + "\n")


@dataclass
class Outcomes:
    """Outcomes of the tests of one run of pytest.

    Args:
        skipped: Ids of tests, and why.
        failed: Ids of tests, and whether each is ``exact``: never run again.
        ended: Whether pytest came to its end.
    """

    passed: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, bool] = field(default_factory=dict)
    ended: bool = False


def read(file: Path) -> Outcomes:
    """Return what a run of pytest wrote so far."""
    found = Outcomes()
    for outcome, test, exact, reason in map(json.loads, file.read_text().splitlines() if file.is_file() else ()):
        if outcome == "ended":
            found.ended = True
        elif outcome == "failed":
            found.failed[test] = exact
        elif outcome == "skipped":
            found.skipped[test] = reason
        else:
            found.passed.add(test)
    found.passed -= found.failed.keys()  # one that passed, and whose end failed
    return found
