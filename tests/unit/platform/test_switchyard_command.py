"""``manage.py switchyard COMMAND``: every command under one name, as it is under its short name."""

from __future__ import annotations

import json

import pytest

from switchyard.commands import COMMANDS
from tests.factories.commands import manage


def test_a_command_is_run_with_its_own_arguments() -> None:
    done = manage("switchyard", "topology", "--json")

    assert done.returncode == 0
    assert done.stdout == manage("topology", "--json").stdout
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("runpool", "nowhere"), 78, "pool 'nowhere' is not declared"),
        (("runpol",), 2, "switchyard: there is no command 'runpol'; did you mean runpool?\n"),
    ],
)
def test_a_refusal_keeps_its_exit_code(words: tuple[str, ...], code: int, said: str) -> None:
    done = manage("switchyard", *words)

    assert done.returncode == code
    assert said in done.stderr


def test_without_a_command_all_are_listed_and_the_exit_code_is_2() -> None:
    done = manage("switchyard")

    assert done.returncode == 2
    listed = [line.split()[0] for line in done.stdout.partition("commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)
