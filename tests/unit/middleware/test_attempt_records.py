"""Parts of the record of an ended attempt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.stores.result_stores import ResultStores
from switchyard.middleware.status import result_of


@pytest.mark.parametrize(("value", "text"), [(None, "null"), ("", '""'), (0, "0"), ({"a": (1,)}, '{"a": [1]}')])
def test_a_result_is_kept_as_json_and_none_is_one(value: Any, text: str) -> None:
    assert result_of(SimpleNamespace(message_id="j"), value, ResultStores()) == (text, "", None)
