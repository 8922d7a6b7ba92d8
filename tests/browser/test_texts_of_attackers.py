"""A hundred payloads in every text that a stranger can write: they add no node to any page, and run nothing."""

import json
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

from tests.browser.payloads import PAYLOADS
from tests.browser.watching import Watch

# Nodes of a document that only a payload can have added.
ADDED = """root => [
    ...root.querySelectorAll("[data-xss], script:not([src], [type='application/json']), iframe, object, embed, base"),
    ...[...root.querySelectorAll("*")].filter(node => [...node.attributes].some(
        each => /^on/i.test(each.name) || /^\\s*(javascript|vbscript|data:text)/i.test(each.value) &&
            /^(href|src|action|formaction|xlink:href|data)$/i.test(each.name))),
    ...[...root.querySelectorAll("a[href], form[action]")].filter(node => new URL(
        node.getAttribute("href") ?? node.getAttribute("action"), location).host.endsWith("evil.example")),
].map(node => node.outerHTML.slice(0, 200))"""
# The browser's own parser reads an answer: a tenth of what it costs to open the page.
ADDED_TO_ANSWER = f"text => ({ADDED})(new DOMParser().parseFromString(text, 'text/html'))"
LISTS = (
    *("/admin/operations/", "/admin/operations/queues/default/", "/admin/operations/queues/images/"),
    *("/admin/operations/workers/", "/admin/operations/actors/repeat/", "/admin/operations/audit/"),
    *("/admin/operations/bulk/", "/admin/switchyard_jobs/job/?actor=repeat"),
    *("/admin/switchyard_jobs/job/?state=dead&actor=repeat", "/admin/switchyard_jobs/job/?state=queued"),
    *("/admin/switchyard_dead_letters/deadletter/", "/admin/switchyard_alerts/alert/", "/admin/shop/customer/"),
)
EACH = 50  # answers are read for each page that is opened


@pytest.fixture(scope="module")
def hostile(yard):
    """Jobs, letters and rows with payloads in every text."""
    return dict(json.loads(yard.run("-m", "tests.browser.hostile").splitlines()[-1]))


@pytest.fixture
def page(shared_context):
    """A page in which no payload may run."""
    ran: list[str] = []
    page = shared_context.new_page()
    page.expose_function("xss", lambda *arguments: ran.append(str(arguments)))
    watch = Watch(page)
    yield page
    page.close()
    assert (ran, watch.errors) == ([], [])


def added_to_answers(page: Page, addresses: list[str]) -> dict[str, list[str]]:
    """Return the nodes that payloads add to the answers of addresses, which are read and not opened."""
    added = {}
    for address in addresses:
        answer = page.request.get(address)
        assert answer.status in (200, 400), f"{address} was answered with {answer.status}"
        if found := page.evaluate(ADDED_TO_ANSWER, answer.text()):
            added[address] = found
    return added


def test_there_are_a_hundred_payloads():
    assert len(set(PAYLOADS)) == 100


# By default every second one.
@pytest.mark.parametrize(
    "address", [pytest.param(one, marks=[pytest.mark.long] if number % 2 else []) for number, one in enumerate(LISTS)]
)
def test_list_shows_texts_and_adds_no_node(address, hostile, page):
    page.goto(address)

    assert page.evaluate(f"({ADDED})(document)") == []


def test_page_of_each_thing_shows_its_payload_as_text(hostile, page):
    # Of a payload that failed, the job or the letter: both pages show it by the same means.
    jobs = [f"/admin/switchyard_jobs/job/{job}/" for job in hostile["failed"][::2] + hostile["succeeded"]]
    letters = [f"/admin/switchyard_dead_letters/deadletter/{letter}/change/" for letter in hostile["letters"][1::2]]
    others = [
        f"/admin/switchyard_jobs/job/{hostile['unknown']}/",
        f"/admin/operations/bulk/{hostile['bulk']}/",
        f"/admin/shop/customer/{hostile['customer']}/change/",
        f"/admin/switchyard_alerts/alert/{hostile['alert']}/change/",
    ]
    added = {}

    for address in [*jobs[::EACH], *letters[::EACH], *others]:
        page.goto(address, wait_until="domcontentloaded")
        if found := page.evaluate(f"({ADDED})(document)"):
            added[address] = found

    assert added == {}
    assert added_to_answers(page, jobs + letters) == {}


@pytest.mark.parametrize(
    "field", ["q", *(pytest.param(each, marks=pytest.mark.long) for each in ("argument", "owner", "error", "actor"))]
)
def test_search_shows_what_was_asked_as_text(field, page):
    texts = PAYLOADS[:: len(PAYLOADS) // 10]
    addresses = [f"/admin/switchyard_jobs/job/?{urlencode({field: text})}" for text in texts]

    page.goto(addresses[0])

    assert page.evaluate(f"({ADDED})(document)") == []
    assert added_to_answers(page, addresses) == {}
