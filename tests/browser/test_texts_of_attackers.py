"""A hundred payloads in every text that a stranger can write: they add no node to any page, and run nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page

from devtools.room.yard import RoomYard
from tests.browser.conftest import Open
from tests.browser.payloads import PAYLOADS

ADDED = """() => [
    ...document.querySelectorAll(
        "[data-xss], script:not([src], [type='application/json']), iframe, object, embed, base"),
    ...[...document.querySelectorAll("*")].filter(node => [...node.attributes].some(
        each => /^on/i.test(each.name) || /^\\s*(javascript|vbscript|data:text)/i.test(each.value) &&
            /^(href|src|action|formaction|xlink:href|data)$/i.test(each.name))),
    ...[...document.querySelectorAll("a[href], form[action]")].filter(
        node => new URL(node.href ?? node.action, location).host.endsWith("evil.example")),
].map(node => node.outerHTML.slice(0, 200))"""

LISTS = (
    "/admin/operations/",
    "/admin/operations/queues/default/",
    "/admin/operations/queues/images/",
    "/admin/operations/workers/",
    "/admin/operations/actors/repeat/",
    "/admin/operations/audit/",
    "/admin/operations/bulk/",
    "/admin/switchyard_jobs/job/?actor=repeat",
    "/admin/switchyard_jobs/job/?state=dead&actor=repeat",
    "/admin/switchyard_jobs/job/?state=queued",
    "/admin/switchyard_dead_letters/deadletter/",
    "/admin/switchyard_alerts/alert/",
    "/admin/shop/customer/",
)


@pytest.fixture(scope="package")
def hostile(yard: RoomYard) -> dict[str, Any]:
    """Jobs, letters and rows with payloads in every text."""
    return dict(json.loads(yard.run("-m", "tests.browser.hostile").splitlines()[-1]))


def runs_of(page: Page) -> list[str]:
    """Return the list that every payload that runs adds to."""
    ran: list[str] = []
    page.expose_function("xss", lambda *arguments: ran.append(str(arguments)))
    return ran


def test_there_are_a_hundred_payloads() -> None:
    assert len(set(PAYLOADS)) == 100


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
@pytest.mark.parametrize("address", LISTS)
def test_list_shows_texts_and_adds_no_node(
    address: str, scripts: bool, hostile: dict[str, Any], open_page: Open
) -> None:
    page = open_page(scripts=scripts)
    ran = runs_of(page)

    page.goto(address)

    assert page.evaluate(ADDED) == []
    assert ran == []


def test_page_of_each_thing_shows_its_payload_as_text(hostile: dict[str, Any], open_page: Open) -> None:
    page = open_page()
    ran = runs_of(page)
    addresses = [
        *(f"/admin/switchyard_jobs/job/{job}/" for job in hostile["failed"] + hostile["succeeded"]),
        *(f"/admin/switchyard_dead_letters/deadletter/{letter}/change/" for letter in hostile["letters"]),
        f"/admin/switchyard_jobs/job/{hostile['unknown']}/",
        f"/admin/operations/bulk/{hostile['bulk']}/",
        f"/admin/shop/customer/{hostile['customer']}/change/",
        f"/admin/switchyard_alerts/alert/{hostile['alert']}/change/",
    ]
    added = {}

    for address in addresses:
        page.goto(address, wait_until="domcontentloaded")
        if found := page.evaluate(ADDED):
            added[address] = found

    assert added == {}
    assert ran == []


@pytest.mark.parametrize("field", ["q", "argument", "owner", "error", "actor"])
def test_search_shows_what_was_asked_as_text(field: str, open_page: Open) -> None:
    page = open_page()
    ran = runs_of(page)
    added = []

    for text in PAYLOADS[:: len(PAYLOADS) // 10]:
        page.goto("/admin/switchyard_jobs/job/")
        address = page.evaluate("([name, value]) => '?' + new URLSearchParams([[name, value]])", [field, text])
        page.goto(f"/admin/switchyard_jobs/job/{address}")
        added += page.evaluate(ADDED)

    assert (added, ran) == ([], [])
