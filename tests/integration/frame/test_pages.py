"""The frame of every page: menu, strip, theme, policy, and that no page has a script in it."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse
from pytest_django import Settings

from switchyard.console.links import actor_url, queue_url
from switchyard.frame.navigation import STRIP
from switchyard.jobs.templatetags.switchyard_jobs import named
from tests.factories.pages import text_of
from tests.integration.operations.test_overview import Seen

ACTOR = "generate_report"


def link(address: str, name: str) -> str:
    return f'<a class="sy-link sy-code" href="{address}">{name}</a>'


def test_actors_and_the_subject_are_links() -> None:
    shown = named(f"slow is 7.2 × behind, because 2 × {ACTOR} hold all slots of slow.", "slow")

    assert shown.startswith(f"{link(queue_url('slow'), 'slow')} is 7.2 × behind")
    assert f"2 × {link(actor_url(ACTOR), ACTOR)} hold all slots of slow." in shown


def test_everything_is_escaped_and_backticks_are_code() -> None:
    assert named("<b> of `<i>`", "<b>") == '&lt;b&gt; of <code class="sy-code">&lt;i&gt;</code>'
    assert named("one ` alone <b>") == "one ` alone &lt;b&gt;"


pytestmark = pytest.mark.django_db

QUEUES, OVERVIEW, THEME = reverse("switchyard-queues"), reverse("switchyard-operations"), reverse("switchyard-theme")
PAGES = [
    reverse(name)
    for name in (
        *("switchyard-operations", "switchyard-queues", "switchyard-actors", "switchyard-operations-workers"),
        *("switchyard-schedules", "switchyard-audit", "switchyard-retention", "switchyard-batches"),
        *("switchyard-limits", "switchyard-bulk-acts", "switchyard-find", "switchyard-keys"),
        *("switchyard-quarantine", "admin:index", "admin:password_change"),
    )
]


def entries(page: str) -> list[str]:
    """Return the names of the menu, in order."""
    menu = page[page.index('class="sy-nav-group"') : page.index("sy-side-user")]
    return [text_of(link) for link in re.findall(r"<a [^>]*>.*?</a>", menu, re.DOTALL)]


def test_the_menu_has_the_room_and_the_apps_of_the_admin_that_the_user_may_see(
    admin_client: Client, watcher: Client
) -> None:
    page = admin_client.get(QUEUES).content.decode()

    assert "|".join(entries(page)) == (
        "Overview|Queues|Limits|Actors|Workers|Jobs|Batches|Schedules|Dead letters|Alerts|Bulk acts|Audit log|"
        "Retention|API|Audit and rights|Authentication and Authorization|Billing|Exports|Images|Mail|Outbox|Reports|"
        "Shop|Webhooks"
    )
    assert re.search(rf'<a href="{QUEUES}" aria-current="page"', page)
    seen = ["Overview", "Queues", "Limits", "Actors", "Workers", "Retention"]
    assert entries(watcher.get(QUEUES).content.decode()) == seen


def test_every_page_but_the_overview_has_the_verdict(admin_client: Client) -> None:
    assert 'id="sy-strip"' not in admin_client.get(OVERVIEW).content.decode()

    page = admin_client.get(QUEUES).content.decode()

    assert STRIP.verdict().verdict.sentence in text_of(page)
    assert 'id="sy-strip"' in page


@pytest.mark.parametrize("address", PAGES)
def test_no_page_has_a_script_or_a_handler_in_it(admin_client: Client, address: str) -> None:
    answer = admin_client.get(address)

    assert answer.status_code == 200
    assert [name for name in Seen(answer.content.decode()).inline if name != "style"] == []
    script = re.search(r"script-src ([^;]*)", answer["Content-Security-Policy"])
    assert script is not None and script[1] == "'self'"


def test_a_refusal_has_the_policy_as_well(admin_client: Client, client: Client) -> None:
    for answer in (
        client.get("/", headers={"host": "not served.example"}),
        client.get("/nowhere/"),
        client.get(QUEUES),
        Client(enforce_csrf_checks=True).post(reverse("admin:login"), {}),
        admin_client.get("/static/nothing.css"),
    ):
        assert answer.status_code in (302, 400, 403, 404)
        assert "script-src 'self';" in answer["Content-Security-Policy"], answer.status_code


def test_no_list_or_form_has_a_script_or_a_handler_in_it(admin_client: Client, admin_user: User) -> None:
    request = RequestFactory().get("/")
    request.user = admin_user

    for model, page in admin.site._registry.items():
        names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        lists = [reverse(f"{names}_changelist")]
        for address in [*lists, *([reverse(f"{names}_add")] if page.has_add_permission(request) else [])]:
            shown = admin_client.get(address, follow=True).content.decode()
            assert [name for name in Seen(shown).inline if name != "style"] == [], address
            assert "switchyard_frame/admin.css" in shown or "switchyard_frame/frame.css" in shown, address


def test_a_theme_leads_to_no_other_site_and_takes_no_other_word(admin_client: Client) -> None:
    assert admin_client.post(THEME, {"theme": "dark", "next": "https://evil.example/"})["Location"] == OVERVIEW
    assert admin_client.post(THEME, {"theme": "dark", "next": "no-page"})["Location"] == "no-page"
    assert admin_client.post(THEME, {"theme": '"><script>'}).status_code == 400


def test_what_is_remembered_is_no_business_of_scripts_or_of_other_sites(admin_client: Client) -> None:
    admin_client.post(THEME, {"theme": "dark", "keys": "off"}, secure=True)
    admin_client.get(f"{OVERVIEW}?yard=table", secure=True)

    for name in ("switchyard_theme", "switchyard_keys", "switchyard_yard"):
        cookie = admin_client.cookies[name]
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax"), name


def test_refused_page_names_the_missing_right_in_any_project(watcher: Client, settings: Settings) -> None:
    settings.TEMPLATES = [{**engine, "DIRS": []} for engine in settings.TEMPLATES]  # without this project's own pages

    answer = watcher.get(reverse("switchyard-queue-pause", args=["default"]))

    page = answer.content.decode()
    assert answer.status_code == 403 and "The missing right is switchyard_operations.pause_queue." in page
    assert f'href="{reverse("switchyard-operations")}">To the overview</a>' in page and 'id="menu"' in page


def test_address_that_leads_nowhere_says_so_in_the_frame_and_a_stranger_sees_no_menu(
    watcher: Client, client: Client
) -> None:
    unknown = watcher.get("/admin/no/<b>such</b>/page/")
    gone = watcher.get(reverse("switchyard-queue", args=["no-such"]))
    strange = client.get("/no/such/page/")

    assert unknown.status_code == gone.status_code == strange.status_code == 404
    page, seen = unknown.content.decode(), strange.content.decode()
    assert "/admin/no/%3Cb%3Esuch%3C/b%3E/page/" in page and 'id="menu"' in page and "Http404" not in page
    assert "The topology has no queue no-such." in gone.content.decode()
    assert "There is nothing at this address" in seen and 'id="menu"' not in seen and "Resolver404" not in seen
