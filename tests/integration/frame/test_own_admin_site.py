"""A project with an ``AdminSite`` of its own: its menu and its login, and no page that fails without the setting."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import include, path, reverse

from switchyard.api.admin import TokenAdmin
from switchyard.api.models import Token
from switchyard.broker.interface import Facilities
from switchyard.conf import switchyard_settings
from switchyard.console.links import admin_site
from switchyard.frame.templatetags.switchyard_frame import room_frame
from switchyard.operations.admin import LISTS, RoomEntry
from switchyard.setting_values import InvalidSetting
from switchyard.workers.checks.installation import addresses

pytestmark = pytest.mark.django_db


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
