from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories.callers import Caller

Submit = Callable[[Any], Any]


@pytest.fixture
def submit(db: None, facilities: Any) -> Submit:
    """Ask for a reconciliation, as somebody whose token may submit and read."""
    caller = Caller()
    return lambda body: caller.post("/reconciliations", body)
