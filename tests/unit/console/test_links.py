"""Addresses of pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test.utils import override_script_prefix

from switchyard.conf import switchyard_settings
from switchyard.console.links import absolute, path_of
from switchyard.console.lists import ASCENDING, SortColumn, heads_of


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("https://yard.example/admin/alerts/?q=1", "/admin/alerts/?q=1"),
        ("/admin/alerts/", "/admin/alerts/"),
        ("", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,<script>", ""),
        ("//evil.example/x.js", "/x.js"),
        ("https://evil.example//other.example/", "/other.example/"),
        ("/\\other.example/", "/other.example/"),
        ("https://[", ""),
    ],
)
def test_path_of_an_address_never_leads_elsewhere(address: str, path: str) -> None:
    assert path_of(address) == path


@pytest.mark.parametrize(
    ("public", "prefix", "path"),
    [
        ("https://h", "/", "/api/v1/jobs"),
        ("https://h/yard", "/yard/", "/yard/api/v1/jobs"),  # in a request
        ("https://h/yard", "/", "/api/v1/jobs"),  # in a worker, or a thread, that knows no prefix
        ("https://h/yard", "/", "/yard/api/v1/jobs"),  # the sub-path is in the project's own addresses
    ],
)
def test_an_absolute_address_has_the_sub_path_once(settings: Any, public: str, prefix: str, path: str) -> None:
    settings.SWITCHYARD = replace(switchyard_settings(), public_url=public)

    with override_script_prefix(prefix):
        assert absolute(path) == f"{public}/api/v1/jobs"


COLUMNS = (SortColumn("name", "Name", ("", "-name"), own=ASCENDING), SortColumn("size", "Size", ("-size", "size")))


def clicks(name: str, count: int) -> list[tuple[str, str]]:
    """Follow a heading's link so often; return each order with the direction that it shows."""
    sort, seen = "", []
    for _ in range(count):
        sort = heads_of(COLUMNS, sort)[name].link.partition("sort=")[2]
        seen.append((sort, heads_of(COLUMNS, sort)[name].direction))
    return seen


def test_clicks_go_through_a_columns_orders_and_back() -> None:
    assert clicks("size", 3) == [("-size", "descending"), ("size", "ascending"), ("", "")]
    assert clicks("name", 2) == [("-name", "descending"), ("", "ascending")]
