from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import RequestFactory

from switchyard.alerts.list_page import asks, links_of


def shown(number: int, pages: int) -> Any:
    def get_query_string(new: dict[str, str]) -> str:
        return f"?{'&'.join(f'{name}={value}' for name, value in new.items())}"

    return SimpleNamespace(
        paginator=SimpleNamespace(num_pages=pages), page_num=number, get_query_string=get_query_string
    )


@pytest.mark.parametrize(
    ("number", "pages", "newer", "older"),
    [(1, 1, "", ""), (1, 3, "", "?p=2"), (2, 3, "?p=1", "?p=3"), (3, 3, "?p=2", "")],
)
def test_pages_are_linked_to_their_neighbours(number: int, pages: int, newer: str, older: str) -> None:
    assert links_of(shown(number, pages)) == {"newer_link": newer, "older_link": older}


@pytest.mark.parametrize(("query", "is_list"), [("", False), ("?e=1", False), ("?all=", True), ("?q=x", True)])
def test_a_filter_asks_for_a_list(query: str, is_list: bool) -> None:
    assert asks(RequestFactory().get(f"/{query}")) is is_list
