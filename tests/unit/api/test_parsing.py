"""Bad text in bodies is refused at a cost that no body can raise."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.api.parsing import MAX_ERRORS, refuse_bad_text
from switchyard.api.problems import Problem


def test_many_bad_texts_far_down_are_refused_by_the_first_ones_in_short() -> None:
    body: Any = ["\0"] * 100_000
    for _ in range(60):
        body = {"n" * 100: body}

    with pytest.raises(Problem) as refused:
        refuse_bad_text(body)

    errors = refused.value.errors
    assert len(errors) == MAX_ERRORS
    assert all(len(error.field) < 500 for error in errors)
