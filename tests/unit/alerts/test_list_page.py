from __future__ import annotations

import pytest
from django.test import RequestFactory

from switchyard.alerts.list_page import asks


@pytest.mark.parametrize(("query", "is_list"), [("", False), ("?all=", True), ("?q=x", True)])
def test_a_filter_asks_for_a_list(query: str, is_list: bool) -> None:
    assert asks(RequestFactory().get(f"/{query}")) is is_list
