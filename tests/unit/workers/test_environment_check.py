"""Misspelt environment variables are warned of, with the nearest name and without their value."""

from __future__ import annotations

import pytest

from project.config import VARIABLES
from switchyard.conf import KEYS
from switchyard.workers.checks.installation import unknown_variables


def test_a_misspelt_variable_is_named_with_the_nearest_one_and_without_its_value() -> None:
    (found,) = unknown_variables({"SWITCHYARD_BROKER_ULR": "redis://:hunter2@valkey"})

    assert (found.id, found.obj) == ("switchyard.W032", "SWITCHYARD_BROKER_ULR")
    assert "Did you mean SWITCHYARD_BROKER_URL?" in str(found.hint) and "hunter2" not in f"{found.msg}{found.hint}"


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
    assert not list(unknown_variables({name: "x"}))
