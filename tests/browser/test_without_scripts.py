"""With JavaScript off every page shows what it shows with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from devtools.room.yard import RoomYard
from tests.browser.conftest import DESKTOP, PATIENCE_MS, log_in
from tests.browser.pages import PAGES, Sample

# Text that is drawn, as a person sees it: of no size, hidden or transparent does not count.
DRAWN = """() => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let drawn = 0, hidden = 0;
    for (let node; (node = walker.nextNode());) {
        const parent = node.parentElement, length = node.data.trim().length;
        if (["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT", "OPTION"].includes(parent.tagName)) continue;
        if (parent.checkVisibility({opacityProperty: true, visibilityProperty: true})) drawn += length;
        else if (!parent.closest("details:not([open])")) hidden += length;
    }
    return [drawn, hidden];
}"""


@pytest.fixture(scope="module")
def without_scripts(browser: Browser, yard: RoomYard) -> Iterator[BrowserContext]:
    """A context without JavaScript."""
    context = browser.new_context(base_url=yard.url, viewport=DESKTOP, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    log_in(context, yard, "ada.byron")
    yield context
    context.close()


@pytest.mark.parametrize("template", PAGES)
def test_page_shows_its_text(template: str, without_scripts: BrowserContext, sample: Sample) -> None:
    page = without_scripts.new_page()
    try:
        page.goto(sample.path(template))

        expect(page.get_by_role("heading").first).to_be_visible()
        drawn, hidden = page.evaluate(DRAWN)
    finally:
        page.close()
    assert drawn > 20
    assert hidden <= drawn / 4, f"{hidden} of {drawn + hidden} characters are hidden"
