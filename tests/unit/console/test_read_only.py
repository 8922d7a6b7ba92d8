"""Permissions of read-only admin pages."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest

from switchyard.api.models import Token
from switchyard.console.room_view import ReadOnly

pytestmark = pytest.mark.django_db


class Kept(ReadOnly, admin.ModelAdmin):
    pass


class Deletable(ReadOnly, admin.ModelAdmin):
    deletable = True


@pytest.fixture
def request_of_root() -> HttpRequest:
    request = HttpRequest()
    request.user = User.objects.create_superuser("root")
    return request


def test_nobody_adds_changes_or_deletes_but_may_view(request_of_root: HttpRequest) -> None:
    page = Kept(Token, admin.site)

    rights = page.get_model_perms(request_of_root)

    assert rights == {"add": False, "change": False, "delete": False, "view": True}


def test_deletable_rows_are_deleted_by_those_with_the_permission(request_of_root: HttpRequest) -> None:
    page = Deletable(Token, admin.site)

    assert page.has_delete_permission(request_of_root)
    request_of_root.user = User.objects.create_user("ada", is_staff=True)
    assert not page.has_delete_permission(request_of_root)
