"""The help of a command shows how it is called, and the reference names each of its parts."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, _SubParsersAction

import pytest
from django.core.management import get_commands, load_command_class

from switchyard.commands import COMMANDS
from switchyard.commands.management.commands.switchyard import load
from tests.unit.documentation.pages import read
from tests.unit.documentation.test_reference import own_commands

# Those without any option.
PLAIN = {"runscheduler", "seed"}


def parser_of(command: str) -> ArgumentParser:
    known = load(command) if command in COMMANDS else load_command_class(str(get_commands()[command]), command)
    return known.create_parser("manage.py", command)


def examples_of(command: str) -> list[list[str]]:
    """Return the example calls in a command's help as lists of arguments, without what is said beside them."""
    lines = re.findall(r"^  manage\.py (?:switchyard )?(.+)$", parser_of(command).format_help(), flags=re.MULTILINE)
    return [shlex.split(re.split(r" {2,}", line)[0]) for line in lines]


def subcommands() -> list[tuple[str, str]]:
    parsers = {command: parser_of(command) for command in sorted(own_commands())}
    return [
        (command, part)
        for command, parser in parsers.items()
        for action in parser._actions
        if isinstance(action, _SubParsersAction)
        for part in action.choices
    ]


@pytest.mark.parametrize("command", sorted(own_commands() - PLAIN))
def test_help_shows_examples_that_the_command_takes(command: str) -> None:
    examples = examples_of(command)

    assert examples != []
    for name, *arguments in examples:
        assert name == command
        parser_of(command).parse_args(arguments)  # a wrong one raises CommandError


@pytest.mark.parametrize(("command", "part"), subcommands())
def test_the_reference_names_each_part_of_a_command(command: str, part: str) -> None:
    assert re.search(rf"`(manage\.py (switchyard )?)?{command} {part}\b|`{part}\b", read("docs/reference/commands.md"))
