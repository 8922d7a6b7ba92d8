"""Three ways to work the pages, with the same words: the keyboard alone, touches on a phone, clicks without JavaScript.

Each hand counts its acts since it was at the overview: links followed and buttons pressed; for the keyboard ``g`` with
a letter, ``/`` with Enter, and Enter.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from playwright.sync_api import Locator, Page, expect

OVERVIEW = "/admin/operations/"
PHONE_WIDTH = 390
LEAST_TOUCH = 44.0
# From one stop to the next within a row or a form, and from row to row.
MOST_TABS = 30
MOST_ROWS = 60
MOST_EXCHANGES = 20
LETTERS = {"Queues": "q", "Workers": "w", "Jobs": "j", "Schedules": "s", "Dead letters": "d", "Alerts": "l"}
IS_FOCUSED = "node => node === document.activeElement"
IN_MAIN = "() => document.activeElement !== null && document.querySelector('main').contains(document.activeElement)"
IN_ROW = "node => node.closest('main tbody tr') !== null"
IS_IN_FOCUSED_ROW = "node => node.closest('main tbody tr').contains(document.activeElement)"
IS_BEFORE_THE_FOCUS = "node => (document.activeElement.compareDocumentPosition(node) & 2) !== 0"
IS_BUTTON_AND_HEIGHT = "node => [node.matches('button, .sy-button'), node.offsetHeight]"
# A line of 2 px around it, nothing on top of it.
FOCUS_IS_SEEN = """node => {
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    const over = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height / 2, 8));
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && node.contains(over);
}"""


class _CountedActs:
    """A person who sees only names: of the menu's pages, of links and buttons by a pattern, of labels and of rows."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.acts = 0

    def begin(self) -> None:
        """Open the overview, and count from there."""
        self.page.goto(OVERVIEW)
        self.acts = 0


class Mouse(_CountedActs):
    def menu(self, title: str) -> None:
        """Open a page from the menu, which is always there."""
        self._follow(menu_entry(self.page, title))

    def find(self, text: str) -> None:
        """Write into the field of the head, and press Enter."""
        field = self.page.get_by_role("banner").get_by_role("textbox", name=re.compile("^Find"))
        field.click()
        field.fill(text)
        self.acts += 1
        with next_page(self.page):
            field.press("Enter")

    def act(self, role: str, name: str) -> None:
        """Click a link or a button."""
        self._follow(control(self.page, role, name))

    def write(self, label: str, text: str) -> None:
        field_of(self.page, label).fill(text)

    def choose(self, label: str, option: str) -> None:
        field_of(self.page, label).select_option(label=option)

    def tick(self, name: str) -> None:
        box_of(self.page, name).check()

    def _follow(self, found: Locator) -> None:
        self.acts += 1
        with next_page(self.page):
            found.click()


class Touch(Mouse):
    """Touches on a phone, whose pages must not be wider than it, nor their buttons lower than a finger is wide.

    What destroys is behind "More" there, on purpose: opening it is no act.
    """

    def act(self, role: str, name: str) -> None:
        """Tap a link or a button, also one behind "More"."""
        more = self.page.get_by_role("main").locator("details.sy-more-acts > summary")
        hidden = self.page.get_by_role("main").get_by_role(role, name=re.compile(name), include_hidden=True)  # type: ignore[arg-type]
        if more.count() and hidden.count() and not any(each.is_visible() for each in hidden.all()):
            assert ask(more, IS_BUTTON_AND_HEIGHT)[1] >= LEAST_TOUCH
            more.tap()
        super().act(role, name)

    def menu(self, title: str) -> None:
        self._open_menu()
        self._follow(menu_entry(self.page, title))

    def find(self, text: str) -> None:
        self._open_menu()
        menu = self.page.get_by_role("navigation", name="Menu")
        menu.get_by_label("Find anything").fill(text)
        self._follow(menu.get_by_role("button", name="Find"))

    def _open_menu(self) -> None:
        self.acts += 1
        self.page.get_by_role("link", name="Menu", exact=True).tap()

    def _follow(self, found: Locator) -> None:
        expect(found).to_be_visible()
        is_button, height = ask(found, IS_BUTTON_AND_HEIGHT)
        assert not is_button or height >= LEAST_TOUCH, f"{found} is {height} px high"
        width = self.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= PHONE_WIDTH, f"{self.page.url} is {width} px wide"
        self.acts += 1
        with next_page(self.page):
            found.tap()


class Keys(_CountedActs):
    """The keyboard alone: ``g`` and a letter, ``/``, ``j`` from row to row, Tab to a control that shows it, Enter."""

    def menu(self, title: str) -> None:
        """Press ``g`` and the letter of a page."""
        self.acts += 1
        self.page.keyboard.press("g")
        with next_page(self.page):
            self.page.keyboard.press(LETTERS[title])

    def find(self, text: str) -> None:
        self.page.keyboard.press("/")
        self.page.keyboard.type(text)
        self._enter()

    def act(self, role: str, name: str) -> None:
        """Go to a link or a button, and press Enter."""
        self._reach(control(self.page, role, name))
        self._enter()

    def write(self, label: str, text: str) -> None:
        """Go to the field of a label, and type."""
        self._reach(field_of(self.page, label))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def choose(self, label: str, option: str) -> None:
        """Go to the field of a label, and type the option's name."""
        found = field_of(self.page, label)
        self._reach(found)
        self.page.keyboard.type(option)
        expect(found.locator("option:checked")).to_have_text(option)

    def tick(self, name: str) -> None:
        """Go to the row of a name, and press ``x``."""
        box = box_of(self.page, name)
        self._press_until("j", box, IS_IN_FOCUSED_ROW, MOST_ROWS)
        self.page.keyboard.press("x")
        expect(box).to_be_checked()

    def _enter(self) -> None:
        self.acts += 1
        with next_page(self.page):
            self.page.keyboard.press("Enter")

    def _reach(self, wanted: Locator) -> None:
        expect(wanted).to_be_visible()
        if ask(wanted, IN_ROW):
            self._press_until("j", wanted, IS_IN_FOCUSED_ROW, MOST_ROWS)
        elif not self.page.evaluate(IN_MAIN):
            self.page.keyboard.press("Tab")
            expect(self.page.get_by_role("link", name=re.compile("^Skip to "))).to_be_focused()
            self.page.keyboard.press("Enter")
        back = ask(wanted, IS_BEFORE_THE_FOCUS)
        self._press_until("Shift+Tab" if back else "Tab", wanted, IS_FOCUSED, MOST_TABS)
        assert ask(wanted, FOCUS_IS_SEEN), f"the focus on {wanted} cannot be seen"

    def _press_until(self, key: str, wanted: Locator, is_there: str, most: int) -> None:
        for _ in range(most):
            if ask(wanted, is_there):
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{wanted} is not reached with {most} times {key}")


Hand = Mouse | Keys

# By their name: who works, and the options of a context.
WAYS: dict[str, tuple[Callable[[Page], Hand], dict[str, bool]]] = {
    "keys": (Keys, {}),
    "touch": (Touch, {"phone": True}),
    "no scripts": (Mouse, {"scripts": False}),
}


def next_page(page: Page) -> AbstractContextManager[object]:
    """Wait for the page that an act leads to, and for its styles: they hide what a wide or a narrow screen has not."""
    return page.expect_navigation(wait_until="load")


def ask(found: Locator, question: str) -> Any:
    """Return what a function says of a node; a page that is updated exchanges its nodes, so an old one is not asked."""
    for _ in range(MOST_EXCHANGES):
        answer = found.evaluate(f"node => node.isConnected ? ({question})(node) : null")
        if answer is not None:
            return answer
    raise AssertionError(f"{found} is exchanged all the time")


def menu_entry(page: Page, title: str) -> Locator:
    """Return a line of the menu, which may count what is open."""
    return page.get_by_role("navigation", name="Menu").get_by_role("link", name=re.compile(f"^{title}"))


def control(page: Page, role: str, name: str) -> Locator:
    """Return the first link or button of the content whose name matches a pattern."""
    return page.get_by_role("main").get_by_role(role, name=re.compile(name)).first  # type: ignore[arg-type]


def field_of(page: Page, label: str) -> Locator:
    return page.get_by_role("main").get_by_label(re.compile(f"^{label}")).first


def box_of(page: Page, name: str) -> Locator:
    return page.get_by_role("main").get_by_role("checkbox", name=f"Choose {name}", exact=True)
