"""Values of arguments that are looked for in a body before it is read."""

from __future__ import annotations

import json

import pytest

from switchyard.history.filters import search_text
from switchyard.jobs.listing.pages import _is_plain

VALUES = [
    *("customer-7", "mia@example.org", "7", "a b", 'say "hi"', "back\\slash", "grün", -5, 1.5, 1e-7, 1e22, True),
    "1e3",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_plain_value_is_in_its_json_as_it_is_searched_for(value: object) -> None:
    text = search_text(value)
    assert text is not None

    assert not _is_plain(text) or text in json.dumps({"name": value})
