"""A page that is open while the broker goes away and comes back: its acts are switched off, and on again."""

import pytest
from playwright.sync_api import Route, expect

AWAY = "The broker does not answer: what needs it is switched off until it does."
STRIP = (
    '<div class="sy-strip" id="sy-strip" data-strip="/admin/operations/strip/" data-off="{0}">'
    '<span class="sy-word">Now</span><p>{1}</p><a href="/admin/operations/">See the verdict</a></div>'
)


@pytest.fixture
def said(open_page):
    """An open page whose strip says what the list holds."""
    off, page = [AWAY], open_page()

    def answer(route: Route) -> None:
        route.fulfill(content_type="text/html", body=STRIP.format(off[0], off[0] or "Every queue is on time."))

    page.route("**/admin/operations/strip/", answer)
    return page, off


def test_acts_of_an_open_letter_follow_the_broker(said, sample):
    page, off = said
    page.goto(sample.path("/admin/switchyard_dead_letters/deadletter/{letter}/change/"))
    requeue = page.get_by_role("button", name="Requeue letter")
    discard = page.get_by_role("main").get_by_text("Discard letter…").filter(visible=True)
    reason = page.get_by_role("main").get_by_text(AWAY, exact=True).and_(page.locator(".sy-off"))
    leads_to = discard.get_attribute("href")
    expect(requeue).to_be_enabled()

    expect(requeue).to_be_disabled()
    expect(discard).to_have_attribute("aria-disabled", "true")
    expect(discard).not_to_have_attribute("href", leads_to or "")
    expect(reason).to_be_visible()
    expect(page.get_by_role("button", name="Acknowledge letter")).to_be_enabled()

    off[0] = ""
    expect(requeue).to_be_enabled()
    expect(discard).to_have_attribute("href", leads_to or "")
    expect(page.locator(".sy-off").first).to_be_hidden()
