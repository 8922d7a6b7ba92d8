"""Tokens in the admin."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from switchyard.api.models import SCOPES, Token, covered_scopes
from switchyard.api.tokens import find_token
from tests.factories.staff import client_of
from tests.unit.api.conftest import MakeToken

LIST = "admin:switchyard_api_token_changelist"


def test_a_token_is_made_and_its_plain_form_shown_once(admin_client: Client, owner: User) -> None:
    form = {"name": "ci", "owner": owner.pk, "scopes": ["submit", "read"]}

    page = admin_client.post(reverse("admin:switchyard_api_token_add"), form, follow=True).content.decode()
    again = admin_client.get(reverse(LIST)).content.decode()

    shown = re.findall(r"sy_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", page)
    assert len(shown) == 1
    token = find_token(shown[0])
    assert (token.name, token.owner, token.scopes) == ("ci", owner, ["submit", "read"])
    assert shown[0] not in again


def test_a_new_token_is_in_no_cookie_and_no_cache(admin_client: Client, owner: User) -> None:
    form = {"name": "<b>ci", "owner": owner.pk, "scopes": ["read"], "_continue": "1"}

    answer = admin_client.post(reverse("admin:switchyard_api_token_add"), form)

    prefix = Token.objects.get().prefix
    assert f"sy_{prefix}_" in answer.content.decode()
    assert f"sy_{prefix}_" not in answer.cookies.output()
    assert "no-store" in answer["Cache-Control"]
    assert b"<b>ci" not in answer.content


@pytest.mark.parametrize("scopes", [[], ["everything"]])
def test_a_token_without_known_scopes_is_not_made(admin_client: Client, owner: User, scopes: list[str]) -> None:
    form = {"name": "ci", "owner": owner.pk, "scopes": scopes}

    response = admin_client.post(reverse("admin:switchyard_api_token_add"), form)

    assert response.status_code == 200
    assert not Token.objects.exists()


def test_once_made_only_the_name_changes(admin_client: Client, make_token: MakeToken) -> None:
    token, plain = make_token("read")
    forged = {"scopes": ["operate"], "owner": User.objects.create_user("eve").pk}

    for form in ({"name": "renamed by its form"}, {"name": "renamed", **forged}):
        admin_client.post(reverse("admin:switchyard_api_token_change", args=[token.pk]), form)
        assert Token.objects.get().name == form["name"]

    token.refresh_from_db()
    assert (token.name, token.scopes, token.owner.username) == ("renamed", ["read"], "ada")
    assert find_token(plain) == token


def test_pages_show_no_secret_and_no_hash(admin_client: Client, make_token: MakeToken) -> None:
    token, plain = make_token()

    for address in (reverse(LIST), reverse("admin:switchyard_api_token_change", args=[token.pk])):
        page = admin_client.get(address).content.decode()
        assert f"sy_{token.prefix}_…" in page
        assert plain not in page
        assert token.secret_hash not in page


def test_tokens_are_revoked(admin_client: Client, make_token: MakeToken) -> None:
    token, plain = make_token()

    admin_client.post(reverse(LIST), {"action": "revoke", "_selected_action": [token.pk]})

    assert find_token(plain) is None


OPERATE = ("view_job", "cancel_job")


def staff(*permissions: str) -> User:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("add_token", "view_token", *permissions)))
    return user


def make_as(user: User, *scopes: str, owner: User | None = None) -> Token | None:
    client = client_of(user)
    form = {"name": "ci", "owner": (owner or user).pk, "scopes": scopes}
    client.post(reverse("admin:switchyard_api_token_add"), form)
    return Token.objects.order_by("-pk").first()


@pytest.mark.parametrize(
    ("permissions", "scope", "may"),
    [
        ((), "read", True),
        ((), "submit", False),
        ((), "operate", False),
        (("submit_work",), "submit", True),
        (("submit_work",), "operate", False),
        (("view_job",), "operate", False),
        (("cancel_job",), "operate", False),
        (OPERATE, "operate", True),
        (OPERATE, "submit", False),
        (("submit_work", *OPERATE), "submit", True),
        (("change_token", "delete_token"), "operate", False),
    ],
)
@pytest.mark.django_db
def test_a_user_gives_a_token_the_scopes_of_their_permissions(
    permissions: tuple[str, ...], scope: str, may: bool
) -> None:
    user = staff(*permissions)

    token = make_as(user, scope)

    assert (token is not None) is may


def test_a_user_makes_tokens_for_themselves_and_a_superuser_every_token_for_everybody(owner: User) -> None:
    user = staff()

    own, any_ = make_as(user, "read", owner=owner), make_as(User.objects.create_superuser("root"), *SCOPES, owner=owner)

    assert own.owner == user
    assert (any_.owner, set(any_.scopes)) == (owner, set(SCOPES))


def post_as(user: User) -> HttpRequest:
    request = RequestFactory().post("/")
    request.user = user
    return request


@pytest.mark.django_db
def test_a_superusers_form_at_the_same_time_widens_no_other() -> None:
    page = site.get_model_admin(Token)
    narrow = page.get_form(post_as(staff()))
    page.get_form(post_as(User.objects.create_superuser("root")))({})

    form = narrow({"name": "ci", "scopes": ["operate"]})

    assert "scopes" in form.errors


@pytest.mark.django_db
def test_an_uncovered_scope_is_refused_when_the_token_is_saved() -> None:
    page, request = site.get_model_admin(Token), post_as(staff())
    token = Token(name="ci", scopes=["read", "operate"])

    with pytest.raises(PermissionDenied, match="permissions do not cover"):
        page.save_model(request, token, page.get_form(request)({}), change=False)

    assert not Token.objects.exists()


@pytest.mark.django_db
def test_an_inactive_user_covers_nothing() -> None:
    user = staff("submit_work", *OPERATE)
    user.is_active = False

    assert covered_scopes(user) == ["read"]
