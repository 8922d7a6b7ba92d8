"""One yard and one browser for all tests of this folder, and a page of its own for each test."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from devtools.room.yard import RoomYard, room_yard
from tests.browser.pages import Sample
from tests.browser.watching import Watch

HERE = Path(__file__).resolve().parent
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
# Of every wait for a condition; under load each takes seconds.
PATIENCE_MS = 60_000
# A container's root may have no namespaces, and /dev/shm may be small. Nothing is fetched from elsewhere, and nothing
# is throttled because a window is hidden.
CHROMIUM = (
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"),
    *("--disable-renderer-backgrounding", "--force-color-profile=srgb"),
)

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="package")
def yard():
    """A yard with something on every page."""
    with room_yard() as running:
        running.facts["made"] = running.make("letters", 3)
        yield running


@pytest.fixture(scope="package")
def sample(yard):
    return Sample(yard)


# Of the package, not the session: Playwright leaves an event loop in this thread, in which Django refuses its database.
@pytest.fixture(scope="package")
def browser():
    """Debian's Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is not on PATH; run: sudo apt install chromium (or bin/test --without chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=CHROMIUM, timeout=120_000)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, yard):
    """Open pages, each in a context of its own, as a user of the yard; fail when one of them reported an error."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def open_one(*, user: str = "ada.byron", scripts: bool = True, phone: bool = False, dark: bool = False) -> Page:
        context = new_context(browser, yard, user=user, scripts=scripts, phone=phone, dark=dark)
        page = context.new_page()
        opened.append((context, Watch(page)))
        return page

    yield open_one
    errors = [error for _, watch in opened for error in watch.errors]
    for context, _ in opened:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def shared_context(browser, yard):
    """A context of a module's tests that change nothing: its cache has the assets."""
    context = new_context(browser, yard, user="ada.byron")
    yield context
    context.close()


def new_context(
    browser: Browser, yard: RoomYard, *, user: str, scripts: bool = True, phone: bool = False, dark: bool = False
) -> BrowserContext:
    """Return a context for a user's pages, which the caller closes."""
    context = browser.new_context(
        base_url=yard.url, viewport=PHONE if phone else DESKTOP, has_touch=phone, java_script_enabled=scripts,
        color_scheme="dark" if dark else "light", reduced_motion="reduce", service_workers="block",
    )  # fmt: skip
    context.set_default_timeout(PATIENCE_MS)
    log_in(context, yard, user)
    return context


def log_in(context: BrowserContext, yard: RoomYard, user: str) -> None:
    """Give a context a user's session; nobody's for ""."""
    if not user:
        return
    cookie: Any = {"name": "sessionid", "value": yard.facts["sessions"][user], "url": yard.url}
    context.add_cookies([cookie])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test of a run the time in which the yard and the browser start."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(600))
