"""A command whose output is read in part, as ``head`` does, ends without a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from switchyard.console.commands import INTERRUPTED, READER_LEFT, PrintingCommand

PRINTING = [["topology"], ["switchyard", "topology"]]


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
def test_a_reader_that_has_left_ends_a_command_quietly(arguments: list[str]) -> None:
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
def test_a_defect_is_not_taken_for_a_reader_that_has_left(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        end_of(error)
    assert raised.value is error


def test_an_interrupted_command_ends_quietly() -> None:
    with pytest.raises(SystemExit) as ended:
        end_of(KeyboardInterrupt())
    assert ended.value.code == INTERRUPTED


def test_characters_that_a_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))

    end_of("80 – 320 ms")

    assert written.getvalue() == b"80 \\u2013 320 ms\n"


def test_a_command_without_a_standard_output_ends_with_its_own_exit_code() -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", "jobs", "show"], cwd=settings.BASE_DIR, stderr=subprocess.PIPE, timeout=60,
        check=False, text=True, preexec_fn=lambda: os.close(1),
    )  # fmt: skip

    assert ended.returncode == 2
    assert "ID" in ended.stderr and "Traceback" not in ended.stderr


def test_an_error_drives_no_terminal() -> None:
    with pytest.raises(CommandError) as raised:
        end_of(CommandError("no actor \x1b[2J\nis named \x9b2J", returncode=7))

    assert (str(raised.value), raised.value.returncode) == ("no actor \\x1b[2J\nis named \\x9b2J", 7)
