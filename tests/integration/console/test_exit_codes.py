"""Exit codes: of the same mistake in each command, of a terminal without a yard, and of output that nobody reads."""

import io
import os
import shlex
import subprocess
import sys
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connections

from switchyard.commands.management.commands.switchyard import Command
from switchyard.console.commands import INTERRUPTED, READER_LEFT, PrintingCommand
from tests.factories.commands import manage

pytestmark = pytest.mark.django_db
LISTS = (
    *(f"{name} list" for name in ("jobs", "history", "deadletters", "alerts", "bulk", "batches")),
    "deadletters groups",
)
JOB = "0c3f9b1e-6a9f-4a90-9ec5-4a3c1d5a2a11"
SEND = "from dramatiq import Message, get_broker; get_broker().enqueue(Message('default', 'none', (), {}, {}))"
PRINTING = [["topology"], ["switchyard", "topology"]]


@pytest.fixture
def actor(facilities):

    @dramatiq.actor(actor_name="couple", queue_name="default")
    def couple(wagon: int) -> None:
        """Do nothing."""

    return couple


@pytest.fixture
def kept(monkeypatch):
    """Neither close the connections of the test after a command, nor check the system before it."""
    monkeypatch.setattr(connections, "close_all", lambda: None)
    monkeypatch.setattr(BaseCommand, "check", lambda *args, **options: None)


def exit_code(call: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "switchyard", *shlex.split(call)])
    return ended.value.code


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "call",
    [
        *("jobs list --since nonsense", "jobs list --state nonsense", "history list --since nonsense"),
        *("history list --after nonsense", "plan --since nonsense"),
        "plan --queue default --arrivals often --duration p50=80ms",
        *("jobs cancel", "jobs cancel --filter actr=1", "jobs cancel --filter actor"),
        *("deadletters requeue", "deadletters discard ID --group FP", "deadletters requeue --since nonsense"),
        *("queues pause default --until yesterday", "actors pause couple --until yesterday"),
        *("actors pause couple --argument nope=1", "actors pause couple --argument wagon=[1]"),
        "actors send couple --args nonsense",
        *("actors send couple --args '[1]' --delay -1", "actors send couple --args '[1]' --tag ''"),
        "actors send couple --kwargs '{\"car\": 1}'",
        *("topology render systemd --value nope=1", "topology render systemd --value user"),
        *("topology render systemd --value user=", "topology render compose --cores 0", "plan --given /nonexistent"),
        *("plan --given /bin/true", "plan --topology nope", "plan --topology os.path", "plan --minutes 0"),
        *("queues note default ''", "queues override nope 3", "queues import nonsense"),
        *("queues relocate couple --from default --to default", "schedules import"),
        *("schedules import /nonexistent", "schedules import --from celery-beat --actor nope"),
        *(f"{words} --limit {limit}" for words in LISTS for limit in (0, 10**30)),
        "runpool default --metrics-port 70000",
        "runweb --port 70000",
    ],
)
def test_an_argument_that_is_none_is_exit_2(actor, call):
    assert exit_code(call) == 2


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("call", ["queues pause nope", "actors pause nope", "jobs show nope", "plan --since 1h"])
def test_something_unknown_is_exit_1(actor, call):
    assert exit_code(call) == 1


TABLES = ("default = 1", "[default]\narrivals = '1/s'\nduration = 5", "[default]\narrivals = []\nduration = 'p50=1s'")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("text", [*TABLES, ""])
def test_a_file_that_gives_no_work_is_exit_2(tmp_path, text):
    (tmp_path / "plan.toml").write_text(text)

    assert exit_code(f"plan --given {tmp_path / 'plan.toml'}") == 2


@pytest.mark.usefixtures("kept")
def test_arguments_that_do_not_fit_a_job_are_exit_2(actor):
    sent = actor.send_with_options(args=(1,), delay=3_600_000).message_id

    assert exit_code(f"jobs run-again {sent} --set car=1") == 2


@pytest.mark.parametrize(
    "arguments", [("jobs", "show", JOB), ("broker",), ("shell", "-v0", "-c", SEND)], ids=lambda arguments: arguments[0]
)
def test_a_terminal_without_a_yard_is_told_that_none_runs_there(tmp_path, arguments):
    state = {"SWITCHYARD_STATE_DIR": str(tmp_path / "var")}

    done = manage(*arguments, hidden=("SWITCHYARD_", "DJANGO_"), cwd=tmp_path, **state)

    said = done.stdout + done.stderr
    assert "yard runs in var" in said or arguments == ("broker",)
    assert "tart bin/demo here, or export SWITCHYARD_STATE_DIR=DIR for a yard that runs in another folder" in said
    assert "check SWITCHYARD_BROKER_URL" not in said


def end_of(outcome: BaseException | str) -> None:
    """Run a command that raises, or writes a text."""

    class Command(PrintingCommand):
        requires_system_checks = []

        def handle(self, *args: object, **options: object) -> None:
            if isinstance(outcome, BaseException):
                raise outcome
            self.stdout.write(outcome)

    if isinstance(outcome, CommandError):
        call_command(Command())
    Command().run_from_argv(["manage.py", "any"])


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_left_ends_a_command_quietly(arguments):
    command = [sys.executable, "manage.py", *arguments]
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            command, cwd=settings.BASE_DIR, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(write)

    assert (ended.returncode, ended.stderr) == (READER_LEFT, b"")


@pytest.mark.parametrize("error", [BrokenPipeError("of a socket"), KeyError("a defect")], ids=repr)
def test_a_defect_is_not_taken_for_a_reader_that_has_left(error):
    with pytest.raises(type(error)) as raised:
        end_of(error)
    assert raised.value is error


def test_an_interrupted_command_ends_quietly():
    with pytest.raises(SystemExit) as ended:
        end_of(KeyboardInterrupt())
    assert ended.value.code == INTERRUPTED


def test_characters_that_a_terminal_lacks_are_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))

    end_of("80 – 320 ms")

    assert written.getvalue() == b"80 \\u2013 320 ms\n"


def test_a_command_without_a_standard_output_ends_with_its_own_exit_code():
    ended = subprocess.run(
        [sys.executable, "manage.py", "jobs", "show"], cwd=settings.BASE_DIR, stderr=subprocess.PIPE, timeout=60,
        check=False, text=True, preexec_fn=lambda: os.close(1),
    )  # fmt: skip

    assert ended.returncode == 2
    assert "ID" in ended.stderr and "Traceback" not in ended.stderr


def test_an_error_drives_no_terminal():
    with pytest.raises(CommandError) as raised:
        end_of(CommandError("no actor \x1b[2J\nis named \x9b2J", returncode=7))

    assert (str(raised.value), raised.value.returncode) == ("no actor \\x1b[2J\nis named \\x9b2J", 7)
