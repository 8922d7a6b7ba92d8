"""An option that an action does not have is answered with the action's own usage and the nearest name."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from apps.platform.commands.management.commands.switchyard import MODULES, load

WITH_ACTIONS = ("actors", "alerts", "audit", "bulk", "deadletters", "history", "jobs", "queues", "schedules", "tokens")


@pytest.mark.parametrize(
    ("command", "usage", "fault"),
    [
        (["jobs", "list", "--filter", "a=b"], "jobs list [-h]", "unrecognized arguments: --filter a=b\n"),
        (["jobs", "list", "--failed"], "jobs list [-h]", "--failed; did you mean --failures?"),
        (["jobs", "list", "--statr=queued"], "jobs list [-h]", "--statr=queued; did you mean --state?"),
        (["jobs", "list", "extra"], "jobs list [-h]", "unrecognized arguments: extra\n"),
        (["queues", "pause", "default", "--reson", "x"], "queues pause [-h]", "did you mean --reason?"),
    ],
)
def test_an_unknown_option_shows_the_usage_of_the_action(
    command: list[str], usage: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(command[0]).run_from_argv(["manage.py", *command])

    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"usage: manage.py {usage}" in shown
    assert fault in shown


def test_code_that_calls_a_command_gets_an_error() -> None:
    with pytest.raises(CommandError, match=r"unrecognized arguments: --failed; did you mean --failures\?"):
        call_command(load("jobs"), "list", "--failed")


@pytest.mark.parametrize("name", WITH_ACTIONS)
def test_the_parser_of_every_action_does_so(name: str) -> None:
    assert name in MODULES
    parser = load(name).create_parser("manage.py", name)
    actions = next(action.choices for action in parser._actions if action.dest in ("action", "act", "verb", "form"))

    for action in actions.values():
        assert type(action).__name__ == "ActionParser"
