"""Tests of a project: sends to the real broker are warned of; tasks, commits and products without a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from project.config import BASE_DIR
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.services import enqueue_on_commit
from switchyard.tasks.backend import declare_tasks
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, enqueued, in_memory, redelivered, run_enqueued
from tests.environment import SERVER
from tests.integration.tasks.host import tasks
from tests.integration.tasks.host.topology import YARD

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


def test_pytest_shows_one_warning_for_each_test_that_forgot_it(folder):
    output = pytest_in(folder, "test_hello.py")

    assert "6 passed, 2 warnings" in output
    for test, line in (("test_forgotten", 9), ("Forgotten::test_in_a_class", 14)):
        assert f"test_hello.py:{line}: SentInTesting: actor hello: the test test_hello.py::{test} sent it to" in output
    assert REMEDY in output


def test_a_broker_that_is_away_does_not_hide_it(folder):
    output = pytest_in(folder, "-k", "test_forgotten", "test_hello.py", url="redis://127.0.0.1:9/0")

    assert "BrokerUnavailable" in output and REMEDY in output


def test_djangos_runner_shows_it_as_well(folder):
    output = run(folder, "-m", "django", "test", "test_hello")

    assert "Ran 2 tests" in output
    assert output.count("SentInTesting: actor hello: the test test_hello.Forgotten.test_in_a_class sent it to the") == 1


NOWHERE = "redis://127.0.0.1:9/0"


@pytest.mark.parametrize("runner", ["pytest", "django"])
def test_the_set_up_of_a_class_in_memory_sends_nothing_to_the_server(folder, runner):
    (folder / "test_set_ups.py").write_text(SET_UPS)

    if runner == "pytest":
        output = pytest_in(folder, "-W", "error", "test_set_ups.py", url=NOWHERE)
    else:
        output = run(folder, "-W", "error::UserWarning", "-m", "django", "test", "test_set_ups", url=NOWHERE)

    assert "2 passed" in output or ("Ran 2 tests" in output and "OK" in output), output


def test_a_fixture_that_sends_is_warned_or_covered_by_the_setting(folder):
    (folder / "test_fixtures.py").write_text(FIXTURES)

    warned = pytest_in(folder, "test_fixtures.py")
    covered = pytest_in(folder, "-o", "switchyard_in_memory=true", "-W", "error", "test_fixtures.py", url=NOWHERE)

    assert "test_fixtures.py:7: SentInTesting: actor hello: sent to the real broker outside of a test" in warned
    assert "1 passed" in covered and "warning" not in covered


@pytest.fixture
def on_memory(settings: Any) -> Iterator[None]:
    """The host's tasks on our backend, and the broker in memory with the host's yard."""
    settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=YARD)
    options = {"modules": [tasks.__name__]}
    settings.TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend", "OPTIONS": options}}
    with in_memory():
        declare_tasks()
        yield


@pytest.mark.usefixtures("on_memory")
@pytest.mark.django_db
def test_a_task_runs_after_the_commit_and_its_result_is_read():
    with transaction.atomic():
        result = tasks.add.enqueue(40, right=2)
        assert_nothing_enqueued()
    [attempt] = run_enqueued()
    result.refresh()

    assert (attempt.outcome, attempt.actor) == ("succeeded", f"{tasks.__name__}.add")
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 42, 1)


@pytest.mark.usefixtures("on_memory")
@pytest.mark.django_db
def test_a_task_can_be_run_again_after_a_crash():
    tasks.add.enqueue(1)
    assert len(enqueued()) == 1

    assert enqueued(tasks.add) == assert_enqueued(tasks.add, args=(1,), count=1)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"for .*\.add\."):
        assert_nothing_enqueued(tasks.add)  # type: ignore[arg-type]
    assert redelivered() == [f"{tasks.__name__}.add"]


def test_every_actor_of_a_product_is_repeated_in_a_test():
    folder = Path(settings.BASE_DIR) / "tests/integration"
    missing = []
    for name, actor in dramatiq.get_broker().actors.items():
        root, _, app = actor.fn.__module__.removesuffix(".actors").rpartition(".")
        tests = folder / app / "test_repeating.py"
        if root == "apps" and not (tests.exists() and name in tests.read_text(encoding="utf-8")):
            missing.append(f"{name}: {tests.relative_to(folder)}")

    assert missing == []


def groups() -> set[str]:
    return set(Group.objects.exclude(name__startswith="Switchyard").values_list("name", flat=True))


def make_group_actor(name: str = "make_group") -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(queue_name="default", actor_name=name)
    def make_group(name: str) -> None:
        Group.objects.create(name=name)

    return make_group


@in_memory()
class OnCommit(TestCase):
    """A plain TestCase: what is asserted is what production would do."""

    def setUp(self) -> None:
        self.make_group = make_group_actor()

    def test_a_job_of_a_commit_is_enqueued_and_sees_the_rows_of_the_test(self) -> None:
        Group.objects.create(name="mine")
        with transaction.atomic():
            job_id = enqueue_on_commit(self.make_group, "of a job")
            assert_nothing_enqueued()

        [message] = assert_enqueued(self.make_group, args=("of a job",), count=1)
        run_enqueued()

        assert (message.message_id, groups()) == (job_id, {"mine", "of a job"})

    def test_the_rows_of_the_test_before_are_gone(self) -> None:
        assert groups() == set()
        assert_nothing_enqueued()

    def test_a_rollback_enqueues_nothing(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            enqueue_on_commit(self.make_group, "nobody")
            raise ZeroDivisionError

        assert_nothing_enqueued()

    def test_a_callback_runs_once_also_beside_djangos_own_helper(self) -> None:
        ran: list[str] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: ran.append("captured"))
        transaction.on_commit(lambda: ran.append("not captured"))

        run_enqueued()
        run_enqueued()

        assert (len(callbacks), ran) == (1, ["captured", "not captured"])

    def test_a_callback_that_fails_is_raised_and_a_robust_one_logged(self) -> None:
        transaction.on_commit(lambda: 1 / 0, robust=True)
        with self.assertLogs("switchyard.testing", "ERROR"):
            run_enqueued()
        transaction.on_commit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_enqueued()

    def test_callbacks_of_a_task_run_with_the_task(self) -> None:
        @dramatiq.actor(queue_name="default")
        def outer() -> None:
            with transaction.atomic():
                enqueue_on_commit(self.make_group, "of a task")

        outer.send()
        assert [attempt.actor for attempt in run_enqueued()] == ["outer", "make_group"]

    @in_memory(eager=True)
    def test_eager_mode_runs_at_the_end_of_the_transaction(self) -> None:
        make_group = make_group_actor("eager")

        with transaction.atomic():
            with transaction.atomic():
                enqueue_on_commit(make_group, "inner")
            assert groups() == set()
        assert groups() == {"inner"}
        enqueue_on_commit(make_group, "outside")
        assert groups() == {"inner", "outside"}


@in_memory()
class RealCommits(TransactionTestCase):
    def test_a_job_is_enqueued_at_the_commit(self) -> None:
        make_group = make_group_actor()

        with transaction.atomic():
            enqueue_on_commit(make_group, "real")
            assert_nothing_enqueued()
        assert_enqueued(make_group, count=1)
        run_enqueued()

        assert groups() == {"real"}


@pytest.mark.django_db
def test_the_fixture_fits_djangos_helper(switchyard_broker, django_capture_on_commit_callbacks):
    make_group = make_group_actor()

    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        enqueue_on_commit(make_group, "captured")
    enqueue_on_commit(make_group, "not captured")
    run_enqueued()

    assert_enqueued(make_group, count=2)
    assert groups() == {"captured", "not captured"}


@pytest.mark.django_db
def test_a_dead_letter_has_its_row_for_people(switchyard_broker):
    @dramatiq.actor(queue_name="default", permanent=(ValueError,))
    def broken() -> None:
        raise ValueError

    broken.send()
    run_enqueued(raises=False)

    assert DeadLetter.objects.get().actor == "broken"
