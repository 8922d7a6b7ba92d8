"""Two ways to work a page, with the same words: touches on a phone without JavaScript, and the keyboard alone."""

from __future__ import annotations

import re
from typing import Protocol

from playwright.sync_api import Locator, Page, expect

MOST_TABS = 400
FOCUS_IS_SEEN = """node => {
    const style = getComputedStyle(node);
    return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1) || style.boxShadow !== "none";
}"""


class Hand(Protocol):
    """What a person does on a page, who sees only names."""

    page: Page

    def menu(self, title: str) -> None:
        """Open a page from the menu."""

    def act(self, role: str, name: str) -> None:
        """Follow a link or press a button, the first whose name matches a pattern; return on the next page."""

    def write(self, label: str, text: str) -> None:
        """Write into the field of a label."""

    def choose(self, label: str, option: str) -> None:
        """Choose an option of the field of a label."""


class Touch:
    """Touches on a phone."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def menu(self, title: str) -> None:
        """Open the menu, and a page from it."""
        self.page.get_by_role("link", name="Menu", exact=True).tap()
        with self.page.expect_navigation(wait_until="domcontentloaded"):
            menu_entry(self.page, title).tap()

    def act(self, role: str, name: str) -> None:
        """Touch a link or a button."""
        with self.page.expect_navigation(wait_until="domcontentloaded"):
            control(self.page, role, name).tap()

    def write(self, label: str, text: str) -> None:
        """Write into the field of a label."""
        field_of(self.page, label).fill(text)

    def choose(self, label: str, option: str) -> None:
        """Choose an option of the field of a label."""
        field_of(self.page, label).select_option(label=option)


class Keys:
    """The keyboard alone: Tab to a control whose focus can be seen, then Enter."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def menu(self, title: str) -> None:
        """Open a page from the menu, which is always there."""
        self._reach(menu_entry(self.page, title))
        self._enter()

    def act(self, role: str, name: str) -> None:
        """Tab to a link or a button, and press Enter."""
        self._reach(control(self.page, role, name))
        self._enter()

    def write(self, label: str, text: str) -> None:
        """Tab to the field of a label, and type."""
        self._reach(field_of(self.page, label))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def choose(self, label: str, option: str) -> None:
        """Tab to the field of a label, and type the option's name."""
        found = field_of(self.page, label)
        self._reach(found)
        self.page.keyboard.type(option)
        expect(found.locator("option:checked")).to_have_text(option)

    def _enter(self) -> None:
        with self.page.expect_navigation(wait_until="domcontentloaded"):
            self.page.keyboard.press("Enter")

    def _reach(self, wanted: Locator) -> None:
        expect(wanted).to_be_visible()
        for _ in range(MOST_TABS):
            if wanted.evaluate("node => node === document.activeElement"):
                assert wanted.evaluate(FOCUS_IS_SEEN), f"the focus on {wanted} cannot be seen"
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{wanted} is not reached with {MOST_TABS} times Tab")


def menu_entry(page: Page, title: str) -> Locator:
    """Return a line of the menu, which may count what is open."""
    return page.get_by_role("navigation", name="Menu").get_by_role("link", name=re.compile(f"^{title}"))


def control(page: Page, role: str, name: str) -> Locator:
    """Return the first link or button of the content whose name matches a pattern."""
    return page.get_by_role("main").get_by_role(role, name=re.compile(name)).first  # type: ignore[arg-type]


def field_of(page: Page, label: str) -> Locator:
    """Return the field of the content whose label begins so."""
    return page.get_by_role("main").get_by_label(re.compile(f"^{label}")).first
