"""Misspelt environment variables are warned of, with the nearest name and without their value."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from project.config import BASE_DIR, VARIABLES
from switchyard.conf import KEYS
from switchyard.workers.checks.installation import unknown_variables


def test_a_misspelt_variable_is_named_with_the_nearest_one_and_without_its_value() -> None:
    (found,) = unknown_variables({"SWITCHYARD_BROKER_ULR": "redis://:hunter2@valkey"})

    assert (found.id, found.obj) == ("switchyard.W032", "SWITCHYARD_BROKER_ULR")
    assert "Did you mean SWITCHYARD_BROKER_URL?" in str(found.hint) and "hunter2" not in f"{found.msg}{found.hint}"


def test_the_projects_own_variables_have_near_names_too() -> None:
    (found,) = unknown_variables({"SWITCHYARD_PAYMENT_SECERT": "x"})

    assert "SWITCHYARD_PAYMENT_SECRET" in str(found.hint)


def test_a_variable_like_no_other_is_told_all_names() -> None:
    (found,) = unknown_variables({"SWITCHYARD_QQQQ": "x"})

    assert "Known are" in str(found.hint) and "SWITCHYARD_STATE_DIR" in str(found.hint)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(variable for variable in KEYS.values() if variable),
        *VARIABLES,
        "SWITCHYARD_CHILD_MIDDLEWARE",
        "SWITCHYARD_MEASURED_QUEUE",
        "SWITCHYARD_SERVICE_HOST",
        "SWITCHYARD_WEB_SERVICE_PORT_HTTP",
        "SWITCHYARD_WEB_PORT",
        "SWITCHYARD_PORT_8000_TCP_ADDR",
        "OTHER_BROKER_ULR",
    ],
)
def test_variables_that_are_read_or_set_by_others_are_not_warned_of(name: str) -> None:
    assert unknown_variables({name: "x"}) == []


def test_manage_py_check_prints_the_warning() -> None:
    environment = {**os.environ, "SWITCHYARD_RELAESE": "7"}
    command = [sys.executable, "manage.py", "check", "--tag", "switchyard"]

    done = subprocess.run(command, env=environment, cwd=BASE_DIR, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "switchyard.W032" in done.stderr and "Did you mean SWITCHYARD_RELEASE?" in done.stderr
