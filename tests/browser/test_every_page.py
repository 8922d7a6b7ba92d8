"""Every page, light and wide or dark and narrow: no error, a strict policy, no sideways scroll, accessible."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, Response

from tests.browser.conftest import DESKTOP, PHONE, new_context
from tests.browser.pages import walked
from tests.browser.watching import Watch

# Colours are those at the end of a transition. Style sheets are not fetched once more.
# Widgets of Django's admin, with names that axe does not count, are Django's to mend.
AXE = """async () => {
    await Promise.allSettled(document.getAnimations().map(each => each.finished));
    const theirs = ["#searchbar", ".select2-container", ".help-tooltip", ".vDateField", ".vTimeField"];
    const found = await axe.run({exclude: theirs.map(each => [each])}, {
        preload: false, resultTypes: ["violations"]
    });
    const serious = found.violations.filter(rule => ["serious", "critical"].includes(rule.impact));
    return serious.map(rule =>
        `${rule.id}: ${rule.nodes.slice(0, 3).map(node => `${node.target.join(" ")} ${node.any[0]?.message ?? ""}`)}`);
}"""
SIDEWAYS = """() => {
    const wide = document.documentElement.scrollWidth - window.innerWidth;
    if (wide <= 0) return "";
    const over = [...document.querySelectorAll("body *")].filter(
        node => node.getBoundingClientRect().right > window.innerWidth + 1 && !node.firstElementChild);
    return `${wide} px: ${over.slice(0, 3).map(node => node.outerHTML.slice(0, 80))}`;
}"""
# Acts that destroy, before another act of their group; the question before an act has one answer and a way back.
ORDER = """() => [...document.querySelectorAll("main .sy-button-bad")].filter(node => node.getClientRects().length)
    .flatMap(bad => [...bad.closest(".sy-acts, td, main").querySelectorAll(".sy-button:not(.sy-button-bad)")]
        .filter(other => other.getClientRects().length && bad.compareDocumentPosition(other) & 4)
        .map(other => `${bad.textContent.trim()} stands before ${other.textContent.trim()}`)).slice(0, 3)"""


# Swagger UI's page of the API: its markup and colours are not ours to mend. All else holds for it.
FOREIGN = "/api/v1/docs"
# Pages that somebody sees who is not, or may not.
DOORS = {
    "login": ("", "/admin/login/?next=/admin/operations/", 200),
    "forbidden": ("r.holm", "/admin/auth/user/", 403),
    "forbidden act": ("r.holm", "/admin/operations/queues/default/purge/", 403),
    "wrong id": ("ada.byron", "/admin/switchyard_jobs/job/no-such-job/", 404),
}


LOOKS = (("light and wide", "light", DESKTOP), ("dark and narrow", "dark", PHONE))


def looks() -> Iterator[Any]:
    """Return the parameters for every page: in one look, which its neighbour has not, and with ``--long`` in both."""
    for number, page in enumerate(walked()):
        for second, look in enumerate((LOOKS[number % 2], LOOKS[1 - number % 2])):
            marks = [*page.marks, *([pytest.mark.long] if second else [])]
            yield pytest.param(page.values[0], look, marks=marks, id=f"{page.values[0]} {look[0]}")


@pytest.fixture(scope="module")
def tab(shared_context):
    """One tab for every page: a new one costs as much as a page."""
    page = shared_context.new_page()
    return page, Watch(page)


@pytest.mark.parametrize(("template", "look"), list(looks()))
def test_page_is_sound(template, look, tab, sample):
    page, watch = tab
    watch.errors.clear()

    wrong = faults(page, sample.path(template), look) + watch.errors

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("door", DOORS)
def test_page_of_who_may_not_is_sound(door, browser, yard):
    user, address, status = DOORS[door]
    context = new_context(browser, yard, user=user)
    page = context.new_page()
    watch = Watch(page)
    try:
        assert page.request.get(address).status == status
        wrong = [fault for look in LOOKS for fault in faults(page, address, look)] + watch.errors
    finally:
        context.close()

    assert not wrong, "\n".join(wrong)


def faults(page: Page, address: str, look: tuple[str, str, Any]) -> list[str]:
    _, scheme, viewport = look
    page.set_viewport_size(viewport)
    page.emulate_media(color_scheme=scheme)
    answer = page.goto(address, wait_until="load")
    if answer.status >= 500:
        return [f"answered with {answer.status}: {page.inner_text('body')[:2_000]}"]
    found = policy_faults(answer)
    if address == FOREIGN:
        page.get_by_text("/api/v1/emails", exact=True).wait_for()
    else:
        page.evaluate(AXE_SCRIPT)
        found += page.evaluate(AXE) + page.evaluate(ORDER)
    if over := page.evaluate(SIDEWAYS):
        found.append(f"scrolls sideways by {over}")
    return found


def policy_faults(answer: Response) -> list[str]:
    """Return what the Content Security Policy of a page allows that it must not."""
    directives = dict(
        part.strip().partition(" ")[::2] for part in answer.headers.get("content-security-policy", "").split(";")
    )
    scripts = directives.get("script-src", directives.get("default-src", "*")).split()
    loose = [word for word in scripts if word not in ("'self'", "'none'") and not word.startswith(("'nonce-", "'sha"))]
    faults = [f"policy: scripts from {loose}"] if loose else []
    for directive in ("object-src", "base-uri", "form-action", "frame-ancestors"):
        if directive not in directives:
            faults.append(f"policy: no {directive}")
    return faults
