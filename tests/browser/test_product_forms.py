"""A row of a product is added, changed and deleted in three ways."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.hands import WAYS, Hand

LIST = "/admin/shop/customer/"


@pytest.fixture(params=WAYS)
def hand(request: pytest.FixtureRequest, open_page: Open) -> Hand:
    """A way to work, as somebody who may do everything."""
    kind, options = WAYS[request.param]
    return kind(open_page(**options))


def test_customer_is_added_changed_and_deleted(hand: Hand) -> None:
    name = f"Ida by {type(hand).__name__}"
    hand.page.goto(LIST)
    hand.act("link", "^Add customer$")
    hand.write("Name", name)
    hand.write("Email", f"{type(hand).__name__}@example.com")
    hand.write("Country", "NO")
    hand.act("button", "^Save$")
    expect(hand.page.get_by_role("main").get_by_role("status").first).to_contain_text("was added successfully")

    hand.page.goto(f"{LIST}?q={type(hand).__name__}%40")
    hand.act("link", f"^{name}$")
    hand.write("Company", "Fjord")
    hand.act("button", "^Save$")
    expect(hand.page.get_by_role("main").get_by_role("status").first).to_contain_text("was changed successfully")

    hand.page.goto(f"{LIST}?q={type(hand).__name__}%40")
    hand.act("link", f"^{name}$")
    hand.act("link", "^Delete$")
    hand.act("link", "^Back$")
    expect(hand.page.get_by_role("heading", name=re.compile(name))).to_be_visible()
    hand.act("link", "^Delete$")
    hand.act("button", "^Delete customer$")
    expect(hand.page.get_by_role("main").get_by_role("status").first).to_contain_text("was deleted successfully")
