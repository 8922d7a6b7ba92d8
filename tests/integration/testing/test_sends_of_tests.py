"""A test that sends to the real broker is warned, with its name, the actor's, and what to write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR
from tests.environment import SERVER

ACTOR = """
import dramatiq

@dramatiq.actor(queue_name="default")
def hello(name): ...
"""
SETTINGS = """
from project.settings import *

TEST_RUNNER = "django.test.runner.DiscoverRunner"  # this repository refuses manage.py test
"""
TESTS = """
import pytest
import dramatiq
from django.test import SimpleTestCase
from switchyard.testing import in_memory
from hello_actors import hello

def test_forgotten():
    hello.send("Ada")
    hello.send("Eve")

class Forgotten(SimpleTestCase):
    def test_in_a_class(self):
        hello.send("Ada")

def test_in_memory(switchyard_broker):
    hello.send("Ada")

@in_memory()
class InMemory(SimpleTestCase):
    def test_in_memory(self):
        hello.send("Ada")

def test_on_purpose(switchyard_real_broker):
    hello.send("Ada")

def test_without_a_send():
    hello("Ada")
"""
SET_UPS = """
import pytest
from django.test import SimpleTestCase
from switchyard.testing import assert_nothing_enqueued, in_memory
from hello_actors import hello

@in_memory()
class Covered(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        hello.send("of the class")

    def test_one(self):
        assert_nothing_enqueued()

class Heir(Covered):
    pass
"""
FIXTURES = """
import pytest
from hello_actors import hello

@pytest.fixture(scope="module")
def sent():
    hello.send("of the module")

def test_two(sent): ...
"""
REMEDY = (
    "write @in_memory() of switchyard.testing above the test or its class, or give it the fixture switchyard_broker"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's tests, and an actor."""
    (tmp_path / "hello_actors.py").write_text(ACTOR)
    (tmp_path / "test_hello.py").write_text(TESTS)
    (tmp_path / "hello_settings.py").write_text(SETTINGS)
    return tmp_path


def run(folder: Path, *arguments: str, url: str = SERVER.url) -> str:
    environment = {**os.environ, "SWITCHYARD_BROKER_URL": url, "PYTHONPATH": f"{folder}:{BASE_DIR}"}
    environment |= {"DJANGO_SETTINGS_MODULE": "hello_settings", "COLUMNS": "300"}
    environment.pop("PYTEST_CURRENT_TEST", None)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder,
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def pytest_in(folder: Path, *arguments: str, url: str = SERVER.url) -> str:
    plugins = ("-p", "switchyard.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist")
    return run(folder, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder), *plugins, *arguments, url=url)


def test_pytest_shows_one_warning_for_each_test_that_forgot_it(folder: Path) -> None:
    output = pytest_in(folder, "test_hello.py")

    assert "6 passed, 2 warnings" in output
    for test, line in (("test_forgotten", 9), ("Forgotten::test_in_a_class", 14)):
        assert f"test_hello.py:{line}: SentInTesting: actor hello: the test test_hello.py::{test} sent it to" in output
    assert REMEDY in output


def test_a_broker_that_is_away_does_not_hide_it(folder: Path) -> None:
    output = pytest_in(folder, "-k", "test_forgotten", "test_hello.py", url="redis://127.0.0.1:9/0")

    assert "BrokerUnavailable" in output and REMEDY in output


def test_djangos_runner_shows_it_as_well(folder: Path) -> None:
    output = run(folder, "-m", "django", "test", "test_hello")

    assert "Ran 2 tests" in output
    assert output.count("SentInTesting: actor hello: the test test_hello.Forgotten.test_in_a_class sent it to the") == 1


NOWHERE = "redis://127.0.0.1:9/0"


@pytest.mark.parametrize("runner", ["pytest", "django"])
def test_the_set_up_of_a_class_in_memory_sends_nothing_to_the_server(folder: Path, runner: str) -> None:
    (folder / "test_set_ups.py").write_text(SET_UPS)

    if runner == "pytest":
        output = pytest_in(folder, "-W", "error", "test_set_ups.py", url=NOWHERE)
    else:
        output = run(folder, "-W", "error::UserWarning", "-m", "django", "test", "test_set_ups", url=NOWHERE)

    assert "2 passed" in output or ("Ran 2 tests" in output and "OK" in output), output


def test_a_fixture_that_sends_is_warned_or_covered_by_the_setting(folder: Path) -> None:
    (folder / "test_fixtures.py").write_text(FIXTURES)

    warned = pytest_in(folder, "test_fixtures.py")
    covered = pytest_in(folder, "-o", "switchyard_in_memory=true", "-W", "error", "test_fixtures.py", url=NOWHERE)

    assert "test_fixtures.py:7: SentInTesting: actor hello: sent to the real broker outside of a test" in warned
    assert "1 passed" in covered and "warning" not in covered
