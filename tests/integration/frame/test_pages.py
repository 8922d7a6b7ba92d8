"""The frame of every page: menu, strip, theme, policy, no script or control character; also on an own site."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import include, path, reverse
from pytest_django import Settings

from switchyard.api.admin import TokenAdmin
from switchyard.api.models import Token
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.conf import switchyard_settings
from switchyard.console.links import actor_url, admin_site, queue_url
from switchyard.frame.templatetags.switchyard_frame import room_frame
from switchyard.frame.views import STRIP
from switchyard.jobs.templatetags.switchyard_jobs import named
from switchyard.operations.admin import LISTS, RoomEntry
from switchyard.setting_values import InvalidSetting
from switchyard.workers.checks.installation import addresses
from tests.factories.pages import text_of
from tests.integration.jobs.history_rows import job_row
from tests.integration.operations.test_overview import Seen
from tests.waiting import wait_for

ACTOR = "generate_report"
EVIL = "\x1b]0;evil\x07 \x9b2J"
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


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


def shown(client: Client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200
    text = page.content.decode()
    assert not CONTROL.search(text)
    return text


def test_a_jobs_error_is_escaped_on_its_page_and_in_lists(admin_client: Client) -> None:
    row = job_row(state="dead", error_type="ValueError", error_message=EVIL, fingerprint="f00d", owner=EVIL)

    page = shown(admin_client, reverse("switchyard-job", args=[row.job_id]))

    assert r"\x1b]0;evil\x07 \x9b2J" in page
    assert r"\x1b]0;evil" in shown(admin_client, reverse("switchyard-jobs") + "?state=dead")


@pytest.mark.django_db(transaction=True)
def test_the_name_of_a_parked_actor_is_escaped_on_the_page_of_its_queue(
    facilities: Facilities, run_worker: Callable[..., Any], admin_client: Client
) -> None:
    body = rb'{"actor":"unknown\u0000\u001b[2J","sent_at":1}'
    broker = dramatiq.get_broker()
    broker.families["default"].enqueue([Entry("parked", body)])
    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").parked)

    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-queue", args=["default"]))
    shown(admin_client, reverse("switchyard-operations"))
    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-jobs") + "?state=scheduled")


class BackOffice(AdminSite):
    """A site that lists a line without a page, as linkding's does."""

    def get_app_list(self, request: Any, app_label: str | None = None) -> list[Any]:
        """Return the apps and a line of its own."""
        return [*super().get_app_list(request, app_label), {"name": "Tasks", "app_label": "tasks", "models": []}]


site = BackOffice(name="backoffice")


namesake, bare = BackOffice(), BackOffice()  # "admin", as Django's own


bare.register(Group)


for each in (site, namesake):
    each.register(Group)
    each.register(list(LISTS), RoomEntry)
    each.register(Token, TokenAdmin)


class Named:
    urlpatterns = [path("", include("switchyard.urls")), path("backoffice/", site.urls)]


class Namesake:
    urlpatterns = [path("", include("switchyard.urls")), path("admin/", namesake.urls)]


class Bare:
    urlpatterns = [path("", include("switchyard.urls")), path("admin/", bare.urls)]


@pytest.mark.parametrize(("urls", "name"), [(Named, "site"), (Namesake, "namesake")])
def test_the_room_is_on_the_site_that_the_setting_names(
    urls: type, name: str, admin_client: Client, settings: Any
) -> None:
    settings.ROOT_URLCONF = urls
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=f"{__name__}.{name}")

    room = admin_client.get("/admin/operations/")
    tokens = admin_client.get(reverse("admin:switchyard_api_token_changelist", current_app=admin_site().name))
    login = Client().get("/admin/operations/").headers["Location"]

    menu = html.unescape(room.content.decode())
    assert f'href="{reverse("admin:app_list", args=["auth"], current_app=admin_site().name)}"' in menu
    assert f'action="{reverse("admin:logout", current_app=admin_site().name)}"' in menu
    assert (room.status_code, tokens.status_code) == (200, 200)
    assert login.startswith(reverse("admin:login", current_app=admin_site().name))
    assert not list(addresses())


def test_who_lacks_the_second_factor_of_the_site_sees_and_does_nothing(
    admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, facilities: Facilities
) -> None:
    settings.ROOT_URLCONF = Named
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=f"{__name__}.site")
    monkeypatch.setattr(site, "has_permission", lambda request: False)
    request = RequestFactory().get("/")
    request.user = User.objects.get()

    answers = [
        admin_client.get("/admin/operations/"),
        admin_client.post("/admin/operations/queues/default/pause/", {"reason": "x"}),
        admin_client.get("/admin/switchyard_jobs/job/m-1/events/"),
    ]

    assert [answer.status_code for answer in answers] == [302, 302, 302]
    assert facilities.transport.stats("default").pause is None
    assert room_frame({"request": request})["groups"] == []


@pytest.mark.parametrize(("urls", "name"), [(Named, "site"), (Bare, "bare")])
def test_without_the_setting_a_check_names_the_site_and_no_page_fails(
    urls: type, name: str, admin_client: Client, settings: Any
) -> None:
    settings.ROOT_URLCONF = urls

    (found,) = addresses()
    pages = {address: admin_client.get(address).status_code for address in ("/admin/operations/", "/api/v1/docs")}

    assert pages == dict.fromkeys(pages, 200)
    assert found.id == "switchyard.E030"
    assert f'"ADMIN_SITE": "{__name__}.{name}"' in str(found.hint)


@pytest.mark.parametrize(
    ("path", "fact"), [("tests.nowhere.site", "No module named"), (f"{__name__}.BackOffice", "is a type, no AdminSite")]
)
def test_a_setting_that_names_no_site_is_refused(path: str, fact: str, settings: Any) -> None:
    settings.SWITCHYARD = replace(switchyard_settings(), admin_site=path)

    with pytest.raises(InvalidSetting, match=rf'^SWITCHYARD\["ADMIN_SITE"\]:? .*{fact}'):
        admin_site()
