"""Pages on Django's stock admin; run by test_stock_admin.py in a process without unfold."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse

from switchyard.api.models import Token
from switchyard.broker.interface import Facilities
from switchyard.dead_letters import projection
from tests.factories.letters import letter

pytestmark = pytest.mark.django_db

LETTERS = reverse("admin:switchyard_dead_letters_deadletter_changelist")
TOKENS = reverse("admin:switchyard_api_token_changelist")


@pytest.fixture
def dead_letter(facilities: Facilities) -> None:
    projection.project_or_log(letter())


def test_every_list_and_add_page_renders(admin_client: Client, admin_user: User, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = admin_user

    for model, page in admin.site._registry.items():
        names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert admin_client.get(reverse(f"{names}_changelist")).status_code == 200
        if page.has_add_permission(request):
            assert admin_client.get(reverse(f"{names}_add")).status_code == 200


def test_open_groups_stand_above_the_list_of_dead_letters(admin_client: Client, dead_letter: None) -> None:
    page = admin_client.get(LETTERS, {"q": ""}).content.decode()

    assert page.index("1 open dead letter is 1 bug") < page.index('id="result_list"')
    assert '<span class="sy-word sy-bad">new</span>' in page
    assert page.count("switchyard_operations/room.css") == 1


def test_pages_of_the_room_load_their_style_sheet_and_link_to_each_other(admin_client: Client) -> None:
    for name in (
        "switchyard-operations",
        "switchyard-operations-workers",
        "admin:switchyard_jobs_job_changelist",
        "admin:switchyard_dead_letters_quarantine",
    ):
        page = admin_client.get(reverse(name)).content.decode()

        assert page.count("switchyard_operations/room.css") == 1
        assert f'href="{reverse("switchyard-operations")}"' in page


def test_a_token_is_made_with_its_scopes_shown_once_and_revoked(admin_client: Client, admin_user: User) -> None:
    form = {"name": "ci", "owner": admin_user.pk, "scopes": ["submit", "read"]}

    page = admin_client.post(reverse("admin:switchyard_api_token_add"), form).content.decode()
    token = Token.objects.get()
    shown = admin_client.get(TOKENS).content.decode()
    admin_client.post(TOKENS, {"action": "revoke", "_selected_action": [token.pk]})

    assert f"sy_{token.prefix}_" in page
    assert token.scopes == ["submit", "read"]
    assert '<span class="sy-word sy-ok">usable</span>' in shown
    assert Token.objects.get().revoked_at is not None
