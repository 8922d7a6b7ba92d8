"""The same mistake in an argument ends each command with the same exit code."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.core.management.base import BaseCommand
from django.db import connections

from switchyard.broker.interface import Facilities
from switchyard.commands.management.commands.switchyard import Command

pytestmark = pytest.mark.django_db

LISTS = ("jobs list", "history list", "deadletters list", "deadletters groups", "alerts list")
LISTS += ("bulk list", "batches list")


@pytest.fixture
def actor(facilities: Facilities) -> Iterator[Any]:
    broker = dramatiq.get_broker()

    @dramatiq.actor(actor_name="couple", queue_name="default", broker=broker)
    def couple(wagon: int) -> None:
        """Do nothing."""

    yield couple
    del broker.actors["couple"]


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither close the connections of the test after a command, nor check the system before it."""
    monkeypatch.setattr(connections, "close_all", lambda: None)
    monkeypatch.setattr(BaseCommand, "check", lambda *args, **options: None)


def exit_code(call: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "switchyard", *shlex.split(call)])
    return ended.value.code


@pytest.mark.parametrize(
    "call",
    [
        "jobs list --since nonsense",
        "jobs list --state nonsense",
        "history list --since nonsense",
        "history list --after nonsense",
        "plan --since nonsense",
        "plan --queue default --arrivals often --duration p50=80ms",
        "jobs cancel",
        "jobs cancel --filter actr=1",
        "jobs cancel --filter actor",
        "deadletters requeue --since nonsense",
        "queues pause default --until yesterday",
        "actors pause couple --until yesterday",
        "actors pause couple --argument nope=1",
        "actors pause couple --argument wagon=[1]",
        "actors send couple --args nonsense",
        "actors send couple --args '[1]' --delay -1",
        "actors send couple --args '[1]' --tag ''",
        "actors send couple --kwargs '{\"car\": 1}'",
        "topology render systemd --value nope=1",
        "topology render systemd --value user",
        "topology render systemd --value user=",
        "topology render compose --cores 0",
        "plan --given /nonexistent",
        "plan --given /bin/true",
        "plan --topology nope",
        "plan --topology os.path",
        "plan --minutes 0",
        "queues note default ''",
        "queues override nope 3",
        "queues import nonsense",
        "queues relocate couple --from default --to default",
        "schedules import",
        "schedules import /nonexistent",
        "schedules import --from celery-beat --actor nope",
        *(f"{words} --limit {limit}" for words in LISTS for limit in (0, 10**30)),
        "runpool default --metrics-port 70000",
        "runweb --port 70000",
    ],
)
def test_an_argument_that_is_none_is_exit_2(actor: Any, call: str) -> None:
    assert exit_code(call) == 2


@pytest.mark.parametrize("call", ["queues pause nope", "actors pause nope", "jobs show nope", "plan --since 1h"])
def test_something_unknown_is_exit_1(actor: Any, call: str) -> None:
    assert exit_code(call) == 1


TABLES = ("default = 1", "[default]\narrivals = '1/s'\nduration = 5", "[default]\narrivals = []\nduration = 'p50=1s'")


@pytest.mark.parametrize("text", [*TABLES, ""])
def test_a_file_that_gives_no_work_is_exit_2(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.toml").write_text(text)

    assert exit_code(f"plan --given {tmp_path / 'plan.toml'}") == 2


def test_arguments_that_do_not_fit_a_job_are_exit_2(actor: Any) -> None:
    sent = actor.send_with_options(args=(1,), delay=3_600_000).message_id

    assert exit_code(f"jobs run-again {sent} --set car=1") == 2
