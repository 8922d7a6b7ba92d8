"""The keys of the room: they lead to pages and rows, rest in fields, and change nothing."""

import re
import string

import pytest
from playwright.sync_api import expect

from tests.browser.watching import Watch

JOBS = "/admin/switchyard_jobs/job/"
PLACES = {
    "o": "/admin/operations/", "q": "/admin/operations/queues/", "a": "/admin/operations/actors/",
    "w": "/admin/operations/workers/", "j": JOBS, "s": "/admin/operations/schedules/",
    "d": "/admin/switchyard_dead_letters/deadletter/", "l": "/admin/switchyard_alerts/alert/",
}  # fmt: skip
ROW = "() => [...document.querySelectorAll('main tbody tr')].indexOf(document.activeElement.closest('tr'))"


@pytest.fixture
def page(shared_context):
    """The list of jobs, as somebody who may do everything; no page may report an error."""
    page = shared_context.new_page()
    watch = Watch(page)
    page.goto(JOBS)
    yield page
    page.close()
    assert watch.errors == []


def test_g_and_a_letter_lead_to_a_page(page):
    for letter, place in PLACES.items():
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(re.compile(re.escape(place) + r"(\?.*)?$"))


def test_slash_finds_anything_and_enter_asks(page):
    page.keyboard.press("/")
    page.keyboard.type("price_basket")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name=re.compile("price_basket"))).to_be_visible()


def test_j_and_k_go_from_row_to_row_and_enter_opens_one(page):
    page.keyboard.press(".")  # no new job moves the rows meanwhile
    rows = page.get_by_role("main").locator("tbody tr")
    expect(rows.nth(1)).to_be_visible()

    page.keyboard.press("j")
    first = page.evaluate(ROW)
    page.keyboard.press("j")
    second = page.evaluate(ROW)
    page.keyboard.press("k")
    third = page.evaluate(ROW)
    page.keyboard.press("Enter")

    assert (first, second, third) == (0, 1, 0)
    page.wait_for_url(lambda url: not url.endswith(JOBS))


def test_question_mark_lists_the_keys_and_escape_closes_the_list(page):
    page.keyboard.press("?")

    listed = page.get_by_role("dialog")
    expect(listed).to_be_visible()
    for letter in PLACES:
        expect(listed.locator("kbd", has_text=re.compile(f"^{letter}$")).first).to_be_visible()
    page.keyboard.press("Escape")
    expect(listed).to_be_hidden()


def test_keys_rest_in_a_field(page):
    field = page.get_by_role("main").get_by_label("Find a job")
    field.focus()

    page.keyboard.type("gq/?.")

    expect(field).to_have_value("gq/?.")
    assert page.url.endswith(JOBS)


def test_skip_link_is_the_first_stop_and_leads_to_the_content(page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name=re.compile("^Skip to"))).to_be_focused()

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert page.evaluate("() => document.querySelector('main').contains(document.activeElement)")


def test_focus_stays_where_it_is_when_the_page_changes(page):
    page.goto(PLACES["o"])
    links = page.locator(f"a[href='{PLACES['q']}billing/']")  # in the yard, and beside each job that runs
    links.nth(1).focus()

    page.evaluate("() => { document.getElementById('sy-live').firstElementChild.id = 'old' }")
    expect(page.locator("#old")).to_have_count(0)

    expect(links.nth(1)).to_be_focused()


def test_no_single_key_changes_anything(page):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.goto("/admin/switchyard_dead_letters/deadletter/1/change/")

    for key in (*string.ascii_letters, *string.digits, ",", ";", "-", "+", "Delete", "Backspace"):
        page.keyboard.press(key)

    page.goto("/admin/operations/keys/")
    assert set(sent) == {"GET"}
