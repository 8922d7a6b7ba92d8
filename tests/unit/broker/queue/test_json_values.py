"""The first part of a value that JSON does not have is named by its path, with what to write instead."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.utils.translation import gettext_lazy

from switchyard.alerts.models import Alert
from switchyard.broker.queue.json_body import refused_part

DUE = date(2030, 1, 1)
CYCLE: dict[str, Any] = {"rows": []}
CYCLE["rows"].append(CYCLE)
DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "path", "fact", "remedy"),
    [
        (DUE, "result", "is a date, which JSON does not have", "{}.isoformat()"),
        ({"rows": [0, 1, 2, DUE, Decimal(1)]}, "result['rows'][3]", "is a date, which", "{}.isoformat()"),
        ({"ok": [1], "a": {"b": ({"c": Decimal(1)},)}}, "result['a']['b'][0]['c']", "is a Decimal", "str({})"),
        ([{(1, 2): 3}], "result[0]", "has a key that is a tuple; keys are text", ""),
        ({7: {1}}, "result[7]", "is a set, which", "sorted({})"),
        (CYCLE, "result['rows'][0]", "holds itself", ""),
        ({"x" * 100: DUE}, f"result['{'x' * 39}…]", "is a date", "{}.isoformat()"),
        (object(), "result", "is an object, which", ""),
        ([Alert(pk=3)], "result[0]", "is an Alert, which", "{}.pk"),
        (gettext_lazy("Hello"), "result", "is a __proxy__, which", "str({})"),
    ],
)
def test_the_refused_part_has_a_path(value: Any, path: str, fact: str, remedy: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        json.dumps(value)

    found = refused_part(value, "result")

    assert (found[0], found[2]) == (path, remedy)
    assert found[1].startswith(fact)


def test_the_path_of_a_deep_value_is_cut() -> None:
    path, fact, _ = refused_part(DEEP, "result")

    assert (len(path), path[-1]) == (70, "…")
    assert fact.startswith("is nested too deep")
