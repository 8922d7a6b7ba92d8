"""``manage.py switchyard COMMAND``: every command under one name, as it is under its short name."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from django.core.management import call_command

from project.config import BASE_DIR
from switchyard.commands.foreign_names import COMMANDS, right_command, unknown_command
from switchyard.commands.management.commands.switchyard import load
from switchyard.commands.modules import MODULES


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_command_is_run_with_its_own_arguments() -> None:
    done = manage("switchyard", "topology", "--json")

    assert done.returncode == 0
    assert done.stdout == manage("topology", "--json").stdout
    assert json.loads(done.stdout)


def test_a_refusal_keeps_its_exit_code() -> None:
    done = manage("switchyard", "runpool", "nowhere")

    assert done.returncode == 78
    assert "pool 'nowhere' is not declared" in done.stderr


def test_help_of_a_command_names_it_in_full() -> None:
    done = manage("switchyard", "doctor", "--help")

    assert done.returncode == 0
    assert done.stdout.startswith("usage: manage.py switchyard doctor ")


def test_without_a_command_all_are_listed_and_the_exit_code_is_2() -> None:
    done = manage("switchyard")

    assert done.returncode == 2
    listed = [line.split()[0] for line in done.stdout.partition("commands:\n")[2].splitlines()]
    assert listed == list(MODULES)


def test_an_unknown_command_is_a_wrong_argument() -> None:
    done = manage("switchyard", "runpol")

    assert done.returncode == 2
    assert "invalid choice: 'runpol'" in done.stderr


@pytest.mark.parametrize("name", ["send", "worker", "retry"])
def test_a_name_of_other_libraries_is_answered_with_the_right_command(name: str) -> None:
    done = manage(name)

    assert done.returncode == 1
    assert f"manage.py: there is no command {name!r}; write manage.py {COMMANDS[name]}\n" in done.stderr
    assert f"Unknown command: {name!r}" in done.stderr


def test_a_name_of_other_libraries_is_answered_below_switchyard() -> None:
    done = manage("switchyard", "purge")

    assert done.returncode == 2
    assert done.stderr == ("switchyard: there is no command 'purge'; write manage.py switchyard queues purge QUEUE\n")


def test_the_right_command_is_one_that_the_project_has() -> None:
    assert right_command("send", ["actors", "migrate"]) == "actors send ACTOR"
    assert right_command("send", ["migrate"]) == "switchyard actors send ACTOR"  # without the short commands
    assert right_command("doctor", ["migrate"]) == "switchyard doctor"
    assert right_command("doctor", ["doctor"]) == right_command("run", ["run"]) == right_command("x", []) == ""


def test_a_command_line_that_is_right_or_strange_is_not_answered() -> None:
    assert unknown_command(["/here/manage.py", "doctor"]) == unknown_command(["manage.py", "migrat"]) == ""
    assert unknown_command(["/here/manage.py", "send"]).startswith("manage.py: there is no command 'send'; write")


def test_every_right_command_exists() -> None:
    for command in COMMANDS.values():
        name, *action = command.split()
        parser = load(name).create_parser("manage.py", name)
        assert not action or action[0] in parser.format_help(), command


def test_it_can_be_called_from_python() -> None:
    out = io.StringIO()

    call_command("switchyard", "topology", "--json", stdout=out)

    assert json.loads(out.getvalue())
