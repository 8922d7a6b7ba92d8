"""Texts and numbers of an attempt, whatever its actor has left in them."""

from __future__ import annotations

from typing import Any

import pytest
from dramatiq.message import Message

from switchyard.middleware.outcomes import attempt, text_of, traceback_of


def test_the_text_of_an_exception_is_made_once() -> None:
    class Slow(Exception):
        made = 0

        def __str__(self) -> str:
            Slow.made += 1
            return "slow"

    error = Slow()

    assert (text_of(error), text_of(error), Slow.made) == ("slow", "slow", 1)


def test_an_exception_that_cannot_be_formatted_is_shown_with_its_frames() -> None:
    try:
        raise SyntaxError("bad", ("f.py", 1, "two", "text"))
    except SyntaxError as error:
        text = traceback_of(error)

    assert text.endswith("SyntaxError: bad (f.py, line 1)\n") and "test_outcomes.py" in text


@pytest.mark.parametrize(("value", "expected"), [(2, 3), ("many", 1), (None, 1), (-5, 1), (True, 1)])
def test_a_count_that_a_task_has_overwritten_is_none(value: Any, expected: int) -> None:
    assert attempt(Message("work", "a", (), {}, {"attempts": value})) == expected
