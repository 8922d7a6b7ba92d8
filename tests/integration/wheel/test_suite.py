"""The conformance suite of the broker and the tests of the middleware, against the installed wheel.

Tests that import what no host has (the project itself, ``apps``, ``demo``, ``devtools``, ``benchmarks``) are
left out, and listed in this test's output.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import Environment
from tests.integration.wheel.hosts import write_host
from tests.integration.wheel.suite import copy_suite

# The wheel has this repository's files (`test_package`), whose suites every run has: here as they are installed.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PYTEST_INI = """
[pytest]
DJANGO_SETTINGS_MODULE = host_settings
addopts = -q --strict-markers -m "not long" -p no:cacheprovider -p tests.environment --timeout=180
filterwarnings = error
markers =
    exact: as in this repository
    long: likewise
    needs: likewise
"""


def test_suites_pass_against_the_installed_wheel(full: Environment, tmp_path: Path) -> None:
    host = write_host(tmp_path / "host")
    (host / "pytest.ini").write_text(PYTEST_INI)
    (host / "docs").symlink_to(REPOSITORY / "docs")  # some compare the code with a page
    suite = copy_suite(REPOSITORY, host)
    for file, imports in suite.left_out.items():
        print(f"left out: {file}, which imports {', '.join(imports)}")

    output = full.run("-m", "pytest", "tests", cwd=host)

    passed = re.search(r"^(\d+) passed", output, re.MULTILINE)
    assert passed is not None and int(passed[1]) > 10 * len(suite.files), output
