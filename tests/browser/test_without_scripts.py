"""With JavaScript off every page shows what it shows with it."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import new_context
from tests.browser.pages import walked

# Text that is drawn, as a person sees it: hidden or transparent does not count. What a person opens is no hidden text,
# nor are the titles of a picture's parts; the list of keys has a page of its own. Of Django's admin, the sidebar says
# what its index says, and the theme's button has three names.
DRAWN = """() => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const unseen = "details:not([open]), dialog:not([open]), #nav-sidebar, .theme-toggle";
    let drawn = 0, hidden = 0;
    for (let node; (node = walker.nextNode());) {
        const parent = node.parentElement, length = node.data.trim().length;
        if (["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT", "OPTION", "title"].includes(parent.tagName)) continue;
        if (parent.checkVisibility({opacityProperty: true, visibilityProperty: true})) drawn += length;
        else if (!parent.closest(unseen)) hidden += length;
    }
    return [drawn, hidden];
}"""


@pytest.fixture(scope="module")
def tab(browser, yard):
    context = new_context(browser, yard, user="ada.byron", scripts=False)
    yield context.new_page()
    context.close()


# Swagger's page of the API is a script.
@pytest.mark.parametrize("template", [page for page in walked() if page.values != ("/api/v1/docs",)])
def test_page_shows_its_text(template, tab, sample):
    tab.goto(sample.path(template))

    expect(tab.get_by_role("heading").first).to_be_visible()
    drawn, hidden = tab.evaluate(DRAWN)

    assert drawn > 20
    assert hidden <= drawn / 4, f"{hidden} of {drawn + hidden} characters are hidden"
