"""Types of arguments of commands."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from switchyard.console.command_help import seconds


@pytest.mark.parametrize("text", ["nan", "-1", "inf", "-inf", "soon", ""])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="give 0 or more, such as 25"):
        seconds(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("25", 25), ("0.5", 0.5), ("1e2", 100)])
def test_a_time_is_a_number_of_seconds(text: str, number: float) -> None:
    assert seconds(text) == number
