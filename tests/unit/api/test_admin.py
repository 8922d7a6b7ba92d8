"""Tokens in the admin."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.platform.api.models import IdempotentRequest, Token
from apps.platform.api.tokens import find_token

MakeToken = Callable[..., tuple[Token, str]]
LIST = "admin:switchyard_api_token_changelist"


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_a_token_is_made_and_its_plain_form_shown_once(admin: Client, owner: User) -> None:
    form = {"name": "ci", "owner": owner.pk, "scopes": ["submit", "read"]}

    page = admin.post(reverse("admin:switchyard_api_token_add"), form, follow=True).content.decode()
    again = admin.get(reverse(LIST)).content.decode()

    shown = re.findall(r"sy_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", page)
    assert len(shown) == 1
    token = find_token(shown[0])
    assert token is not None
    assert (token.name, token.owner, token.scopes) == ("ci", owner, ["submit", "read"])
    assert shown[0] not in again


def test_a_new_token_is_in_no_cookie_and_no_cache(admin: Client, owner: User) -> None:
    form = {"name": "<b>ci", "owner": owner.pk, "scopes": ["read"], "_continue": "1"}

    answer = admin.post(reverse("admin:switchyard_api_token_add"), form)

    prefix = Token.objects.get().prefix
    assert f"sy_{prefix}_" in answer.content.decode()
    assert f"sy_{prefix}_" not in answer.cookies.output()
    assert "no-store" in answer["Cache-Control"]
    assert b"<b>ci" not in answer.content


@pytest.mark.parametrize("scopes", [[], ["everything"]])
def test_a_token_without_known_scopes_is_not_made(admin: Client, owner: User, scopes: list[str]) -> None:
    form = {"name": "ci", "owner": owner.pk, "scopes": scopes}

    response = admin.post(reverse("admin:switchyard_api_token_add"), form)

    assert response.status_code == 200
    assert not Token.objects.exists()


def test_once_made_only_the_name_changes(admin: Client, make_token: MakeToken) -> None:
    token, plain = make_token("read")
    form = {"name": "renamed", "scopes": ["operate"], "owner": User.objects.create_user("eve").pk}

    admin.post(reverse("admin:switchyard_api_token_change", args=[token.pk]), form)

    token.refresh_from_db()
    assert (token.name, token.scopes, token.owner.username) == ("renamed", ["read"], "ada")
    assert find_token(plain) == token


def test_pages_show_no_secret_and_no_hash(admin: Client, make_token: MakeToken) -> None:
    token, plain = make_token()

    for address in (reverse(LIST), reverse("admin:switchyard_api_token_change", args=[token.pk])):
        page = admin.get(address).content.decode()
        assert f"sy_{token.prefix}_…" in page
        assert plain not in page
        assert token.secret_hash not in page


def test_tokens_are_revoked(admin: Client, make_token: MakeToken) -> None:
    token, plain = make_token()

    admin.post(reverse(LIST), {"action": "revoke", "_selected_action": [token.pk]})

    assert find_token(plain) is None


def test_who_may_only_look_cannot_revoke(make_token: MakeToken) -> None:
    token, plain = make_token()
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_token"))
    client = Client()
    client.force_login(viewer)

    client.post(reverse(LIST), {"action": "revoke", "_selected_action": [token.pk]})

    assert find_token(plain) == token


def test_kept_requests_are_shown_and_not_changed(admin: Client, make_token: MakeToken) -> None:
    token, _ = make_token()
    kept = IdempotentRequest.objects.create(token=token, key="k1", fingerprint="f" * 64, status=202, body=b"{}")

    listing = admin.get(reverse("admin:switchyard_api_idempotentrequest_changelist"))
    detail = admin.get(reverse("admin:switchyard_api_idempotentrequest_change", args=[kept.pk]))
    change = admin.post(reverse("admin:switchyard_api_idempotentrequest_change", args=[kept.pk]), {"key": "k2"})

    assert (listing.status_code, detail.status_code, change.status_code) == (200, 200, 403)
    assert b"k1" in listing.content
