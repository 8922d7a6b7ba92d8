"""Logs are lines: what stands in a message cannot forge one, nor steer a terminal, nor show arguments."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from middleware import logs

NASTY = "actor\x1b[2J\nforged line\r\u202e"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def test_control_characters_are_shown_in_a_terminals_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console")

    logging.getLogger("other").warning("got %s", NASTY)
    structlog.stdlib.get_logger("ours").info("started", actor=NASTY)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("forged line" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_a_traceback_keeps_its_lines_but_no_control_characters_nor_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("console")

    password = "hunter2"
    try:
        raise ValueError(f"bad\x1b[2J {len(password)}")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")

    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "bad\\x1b[2J 7" in printed
    assert "\x1b[2J" not in printed
    assert "hunter2" not in printed.replace('password = "hunter2"', "")


def test_json_logs_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")

    structlog.stdlib.get_logger("ours").info("started", actor=NASTY)

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["actor"] == NASTY
