"""Addresses of pages."""

from __future__ import annotations

import pytest

from switchyard.console.links import path_of


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
