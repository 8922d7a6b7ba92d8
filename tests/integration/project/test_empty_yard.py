"""With ``apps/`` and its lines in ``project/`` gone, an empty yard starts and the platform's tests pass."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR
from tests.integration.wheel.environments import clean_environment
from tests.integration.wheel.environments import run as run_program

PRODUCTS = ("shop", "mail", "reports", "images", "webhooks", "billing", "exports")
# Without demo/, which runs the products.
COPIED = ("apps", "devtools", "middleware", "project", "switchyard", "tests", "manage.py", "pyproject.toml")
NAMED = re.compile(rf"\bapps\.({'|'.join(PRODUCTS)})\b")
# Tests that run in the copy: they cover requests, tokens, jobs and workers within seconds.
PLATFORM_TESTS = ("tests/unit/api/test_tokens.py", "tests/integration/jobs/test_api.py")
START = """
from django.core.management import call_command
call_command("check")
call_command("migrate", verbosity=0)
from django.test import Client
from project.asgi import application
document = Client(headers={"Host": "localhost"}).get("/api/v1/openapi.json").json()
print("paths:", *sorted({path.split("/")[3] for path in document["paths"]}))
"""


def copied_project(copy: Path, names: tuple[str, ...]) -> Path:
    """Copy folders and files of this project, with what Python compiled but for what it is just writing."""
    for name in names:
        if (BASE_DIR / name).is_dir():
            shutil.copytree(BASE_DIR / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BASE_DIR / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def empty_yard(tmp_path_factory):
    """A copy of this project as a team prepares it for its own work."""
    copy = copied_project(tmp_path_factory.mktemp("yard"), COPIED)
    for product in PRODUCTS:
        shutil.rmtree(copy / "apps" / product)
        for kind in ("unit", "integration"):
            shutil.rmtree(copy / "tests" / kind / product, ignore_errors=True)
    for file in (copy / "project").glob("*.py"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not NAMED.search(line)))
    return copy


def run(yard: Path, *command: str) -> str:
    """Run Python in the copy, without this process's settings."""
    environment = clean_environment(SWITCHYARD_STATE_DIR=str(yard / "var"), SWITCHYARD_RELEASE="test")
    return run_program(sys.executable, *command, cwd=yard, environment=environment, timeout_s=120)


def test_nothing_in_the_project_names_a_product_any_more(empty_yard):
    folders = ("apps", "middleware", "project", "switchyard")
    named = [path for name in folders for path in (empty_yard / name).rglob("*.py") if NAMED.search(path.read_text())]

    assert named == []


def test_the_empty_yard_passes_its_checks_and_its_web_has_the_platforms_requests_alone(empty_yard):
    printed = run(empty_yard, "manage.py", "shell", "--verbosity", "0", "--command", START)

    assert "System check identified no issues" in printed and "paths: jobs queues\n" in printed


def test_the_platforms_tests_pass_in_the_empty_yard(empty_yard):
    run(empty_yard, "-m", "pytest", *PLATFORM_TESTS)
